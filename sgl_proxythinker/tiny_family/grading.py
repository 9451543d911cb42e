"""Reading an answer: what it claims, and how it got there."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """What a text shows of itself."""

    claim: str  # what it says the answer is
    thinks: bool  # step by step, before it answers
    verifies: bool  # goes over its steps again
    backtracks: bool  # takes something back


def read_answer(text: str) -> Reading:
    """The claim is what the last <answer> holds; without one, the whole text."""
    found = _ANSWER.findall(text)
    claim = (found[-1] if found else text).strip()
    return Reading(claim, "<think>" in text, "check" in text, "wait" in text)


def is_right(text: str, answer: str) -> bool:
    """Exact match with what the text claims."""
    return read_answer(text).claim == answer
