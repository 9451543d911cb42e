"""Whether two expressions are the same mathematics, however they are written."""

from __future__ import annotations

import re

from sgl_proxythinker.answers import same_answer
from sgl_proxythinker.evaluation.grading.units import unit_in
from sgl_proxythinker.evaluation.grading.unwrapped import named, unwrapped

MOST_CHARACTERS = 300  # of an expression that is worked out; nobody asks for a longer one

_ROOT = re.compile(r"√\s*(?:\{+([^{}]*)\}+|\(([^()]*)\)|(\d+|[a-z]))")
_BASE = re.compile(r"\d\s*_")  # 101_2, a number of another base
# Words at an end, of which not all are a unit.
_WORDS = re.compile(r"(?:\\[,; ]|\s)*\\(?:text|mathrm)\s*\{([^{}]*)\}\s*(\^\{?[23]\}?|[²³]|)\s*\$?\.?$")


def same_mathematics(claim: str, answer: str) -> bool:
    """Whether a claim is equal to an answer, with or without the name that it gives it and the unit behind it.

    What has another name or another unit is something else, and an equation is no value.
    """
    if max(len(claim), len(answer)) > MOST_CHARACTERS:
        return False
    (said, unit), (truth, other_unit) = _without_unit(claim), _without_unit(answer)
    if unit and other_unit and unit != other_unit:
        return False
    return any(_are_same(one, other) for one in _forms(claim, said) for other in _forms(answer, truth))


def _are_same(claim: str, answer: str) -> bool:
    (name, said), (other, truth) = named(claim), named(answer)
    if (name and other and name != other) or ("=" in said) != ("=" in truth):
        return False
    if _BASE.search(said) or _BASE.search(truth):  # math-verify passes over it
        return said == truth
    return same_answer(said, truth)


def _without_unit(text: str) -> tuple[str, str]:
    """An expression apart from the unit behind it, "" where there is none."""
    found = _WORDS.search(text)
    unit = unit_in("".join(found.groups()), is_glued=False) if found else None
    if found is None or unit is None or not unwrapped(text[: found.start()]):
        return text, ""
    return text[: found.start()], unit


def _forms(*texts: str) -> set[str]:
    return {_ROOT.sub(_in_latex, unwrapped(text)) for text in texts} - {""}


def _in_latex(root: re.Match[str]) -> str:
    return rf"\sqrt{{{next(part for part in root.groups() if part is not None)}}}"
