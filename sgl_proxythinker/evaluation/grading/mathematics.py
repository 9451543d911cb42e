"""Whether two expressions are the same mathematics, however they are written."""

from __future__ import annotations

import re

from sgl_proxythinker.answers import same_answer
from sgl_proxythinker.evaluation.grading.unwrapped import unwrapped

MOST_CHARACTERS = 300  # of an expression that is worked out; nobody asks for a longer one

_NAME = re.compile(r"^\s*\\?[A-Za-z]\w*(?:\([a-z]\))?\s*=\s*")  # "x = 5", "f(x) = 2x"
_ROOT = re.compile(r"√\s*(?:\{+([^{}]*)\}+|\(([^()]*)\)|(\d+|[a-z]))")
_UNIT = re.compile(r"(?:\\[,; ]|\s)*\\(?:text|mathrm)\s*\{[^{}]*\}\s*\$?$")


def same_mathematics(claim: str, answer: str) -> bool:
    """Whether a claim is equal to an answer, with or without the name that it gives it and the unit behind it."""
    if max(len(claim), len(answer)) > MOST_CHARACTERS:
        return False
    return any(same_answer(one, other) for one in _forms(claim) for other in _forms(answer))


def _forms(text: str) -> set[str]:
    forms = set()
    for one in (text, _UNIT.sub("", text)):
        plain = _ROOT.sub(_in_latex, unwrapped(one))
        forms |= {plain, _NAME.sub("", plain)}
    return forms - {""}


def _in_latex(root: re.Match[str]) -> str:
    return rf"\sqrt{{{next(part for part in root.groups() if part is not None)}}}"
