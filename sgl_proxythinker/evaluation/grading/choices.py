"""Which choice a claim names: by its letter, or by its text."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from sgl_proxythinker.answers import normal_form
from sgl_proxythinker.evaluation.grading.mathematics import same_mathematics
from sgl_proxythinker.evaluation.grading.numbers import number_in
from sgl_proxythinker.evaluation.grading.unwrapped import unwrapped

_NAMED = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+|best\s+)?(?:answer|option|choice)?\s*(?:is|=)?|选项?)\s*[:：]?\s*"  # "Option B"
    r"[(（\[]?\s*([A-Z])\s*(?:[)）\].:：,、]|$)\s*(.*)",
    re.IGNORECASE | re.DOTALL,
)


def letter(index: int) -> str:
    """Of the choice with an index from 0 on."""
    return string.ascii_uppercase[index]


def letter_of_text(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the first choice that reads exactly so; None: there is none."""
    return letter(choices.index(text)) if text in choices else None


def letter_of(claim: str, choices: Sequence[str]) -> str | None:
    """The letter of the one choice that a claim names.

    A letter counts where it stands alone ("B", "(B)", "Option B") or before the text of its choice ("B: 12 cm"), never
    inside of a word. A claim without a letter names the choice that says the same; of two that do it names none.

    Args:
        choices: their texts, from A on. None are known: a claim is a letter, whatever stands behind it.
    """
    plain = unwrapped(claim)
    if named := _NAMED.fullmatch(plain):
        name, rest = named.group(1).upper(), named.group(2).strip()
        index = string.ascii_uppercase.index(name)
        if not choices or (index < len(choices) and (not rest or _says(rest, choices[index]))):
            return name
    same = [index for index, choice in enumerate(choices) if _says(plain, choice)]
    return letter(same[0]) if len(same) == 1 else None


def _says(claim: str, choice: str) -> bool:
    one, other = normal_form(unwrapped(claim)), normal_form(unwrapped(choice))
    if not one or one == other:
        return bool(one)
    said, listed = number_in(claim), number_in(choice)
    if said is not None and listed is not None:
        return said.value == listed.value and said.may_be_in(listed.unit)
    return same_mathematics(claim, choice)
