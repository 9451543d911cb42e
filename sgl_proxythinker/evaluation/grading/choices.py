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

_ANOTHER_LETTER = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z])")


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
        choices: their texts, from A on. None are known: a claim is a letter, and no other letter stands behind it.
    """
    plain = unwrapped(claim)
    if found := _NAMED.fullmatch(plain):
        name, rest = found.group(1).upper(), found.group(2).strip()
        index = string.ascii_uppercase.index(name)
        if not choices:
            return None if _ANOTHER_LETTER.search(rest) else name
        as_written = _NAMED.fullmatch(claim)  # a unit is known by its \text{}
        said = as_written.group(2) if as_written else rest
        if index < len(choices) and (not rest or any(says(said, choices[index]) for says in _WAYS)):
            return name
    for says in _WAYS:
        if same := [index for index, choice in enumerate(choices) if says(claim, choice)]:
            return letter(same[0]) if len(same) == 1 else None
    return None


def _says_its_text(claim: str, choice: str) -> bool:
    plain = normal_form(unwrapped(claim))
    return bool(plain) and plain == normal_form(unwrapped(choice))


def _says_its_number(claim: str, choice: str) -> bool:
    said, listed = number_in(claim), number_in(choice)
    return said is not None and listed is not None and said.value == listed.value and said.is_said_of(listed)


def _says_its_mathematics(claim: str, choice: str) -> bool:
    both_are_numbers = number_in(claim) is not None and number_in(choice) is not None
    return not both_are_numbers and same_mathematics(claim, choice)


# In this order: a choice that is repeated word for word is meant, whatever else is equal to it.
_WAYS = (_says_its_text, _says_its_number, _says_its_mathematics)
