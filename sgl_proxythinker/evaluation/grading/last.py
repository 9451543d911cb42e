"""The rule that lets an answer correct itself: its last marked answer counts, compared by the kind of the question."""

from __future__ import annotations

import re
from enum import StrEnum

from sgl_proxythinker.answers import final_answer, normal_form
from sgl_proxythinker.evaluation.grading.choices import letter_of
from sgl_proxythinker.evaluation.grading.mathematics import same_mathematics
from sgl_proxythinker.evaluation.grading.numbers import number_in, same_number, same_numbers
from sgl_proxythinker.evaluation.grading.unwrapped import unwrapped
from sgl_proxythinker.evaluation.questions import AnswerKind, Question
from sgl_proxythinker.evaluation.records import Grade

MOST_CHARACTERS = 1000  # of a claim that is compared: no answer of a benchmark is that long
SHORT_CHARACTERS = 60  # an answer without any mark that is no longer is its own claim

_SENTENCE = re.compile(
    r"(?:answer|(?:correct|right|best)\s+(?:option|choice)|the\s+(?:option|choice))\**\s*"
    r"(?:is|would\s+be|should\s+be|:|：)+\s*[:：]?\s*(.+?)(?:(?<!approx)[.。]\s|[.。]?$|\n)"
    r"|(?:答案|选项|选择)\s*(?:是|为|应为|应该是|选|:|：)*\s*[:：]?\s*(.+?)(?:[。.，,]|$|\n)",
    re.IGNORECASE,
)
# What says why a claim is so. What denies it, adds to it or makes another of it is no reason.
_REASON = re.compile(
    r"\s+(?:because|since(?!\s+\d))\b|,\s+(?:since|as(?!\s+(?:well|is|are)\b)"
    r"|(?:so|which)\b(?![^.。]*(?:\d|\b[A-Z]\b|not\b|n't\b|\b(?:no|never|wrong|incorrect|impossible)\b)))\b"
)
# Before a sentence that names what the answer is not.
_DENIAL = re.compile(r"\b(?:no|not|isn't|without|first|thought|wrong|if)\b[^.。\n]{0,30}$", re.IGNORECASE)
_TAG = re.compile(r"</?answer>")
_MARK = re.compile(r"\\boxed\s*\{|<answer>")


class AnswerIn(StrEnum):
    """Where answers are marked."""

    ANY = "any"  # a box, a tag, a sentence, or as a whole if it is short
    BOX = "box"
    ANSWER = "answer"  # <answer>...</answer>


def grade_last(text: str, question: Question, cut_off: bool, where: AnswerIn = AnswerIn.ANY) -> Grade:
    """Grade an answer by its last marked answer. One that was cut off has not come to its end, and claims nothing."""
    claim = last_claim(text, cut_off, where)
    if not 0 < len(claim) <= MOST_CHARACTERS:
        return Grade(claim=claim, right=False)
    if (reason := _REASON.search(claim)) and not _is_answer(claim, question):
        claim = claim[: reason.start()].strip("*, ")
    return Grade(claim=claim, right=_is_right(claim, question))


def last_claim(text: str, cut_off: bool, where: AnswerIn = AnswerIn.ANY) -> str:
    """The last `\\boxed{}` or `<answer>`, else the last "the answer is X", else a short answer as a whole; or empty."""
    if cut_off:
        return ""
    said = text.rpartition("</think>")[2]
    if "<think>" in said:
        return ""  # it ends within its thought
    if where == AnswerIn.BOX:
        said = _TAG.sub("", said)
    elif where == AnswerIn.ANSWER and "<answer>" not in said:
        return ""
    if _MARK.search(said):
        return final_answer(said)
    if where == AnswerIn.BOX:
        return ""
    sentences = [found for found in _SENTENCE.finditer(said) if not _DENIAL.search(said[: found.start()])]
    if sentences:
        return next(part for part in reversed(sentences[-1].groups()) if part is not None).strip("* ")
    return final_answer(said) if len(said.strip()) <= SHORT_CHARACTERS else ""


def _is_answer(claim: str, question: Question) -> bool:
    """Whether all of a claim is an answer, as a choice is whose text says why, too."""
    if question.kind == AnswerKind.CHOICE:
        return letter_of(claim, question.choices) is not None
    return _is_right(claim, question)


def _is_right(claim: str, question: Question) -> bool:
    answer = question.answer
    match question.kind:
        case AnswerKind.CHOICE:
            return letter_of(claim, question.choices) == answer
        case AnswerKind.INTEGER:
            return same_number(claim, answer, None) or _is_same_expression(claim, answer)
        case AnswerKind.DECIMAL:
            return same_number(claim, answer, question.decimal_places)
        case AnswerKind.NUMBERS:
            return same_numbers(claim, answer)
        case AnswerKind.TEXT:
            return _same_text(claim, answer)
        case AnswerKind.MATHEMATICS:
            return _same_text(claim, answer) or _is_same_expression(claim, answer)


def _same_text(claim: str, answer: str) -> bool:
    one, other = normal_form(unwrapped(claim)), normal_form(unwrapped(answer))
    return one == other or same_number(claim, answer, None)


def _is_same_expression(claim: str, answer: str) -> bool:
    both_are_numbers = number_in(claim) is not None and number_in(answer) is not None
    return not both_are_numbers and same_mathematics(claim, answer)
