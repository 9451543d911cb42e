"""The rule of the paper's scripts: the first box counts.

From MrZilinXiao/ProxyThinker at f0de02a, `src/math_common_utils.py`, which compares by mathruler.
"""

from __future__ import annotations

import re
import string

from sgl_proxythinker.evaluation.grading.choices import letter_of_text
from sgl_proxythinker.evaluation.grading.mathruler import same_by_mathruler
from sgl_proxythinker.evaluation.questions import Question
from sgl_proxythinker.evaluation.records import Grade

_BOX = "\\boxed{"
_SENTENCE = re.compile(r"Answer:\s*([A-Z]|\w[\w.\-+]*)")


def grade_published(text: str, question: Question) -> Grade:
    """Grade an answer as the paper's scripts do: right if what is in the first box is the answer or its letter."""
    claim = first_claim(text)
    return Grade(claim=claim, right=bool(claim) and any(_same(claim, truth) for truth in _truths(question)))


def first_claim(text: str) -> str:
    """The first `\\boxed{}`, else the last `<answer>`, else the last "Answer: X"; empty if there is none.

    A box that is not closed holds the rest of the text. An empty box is none.
    """
    claim = _in_first_box(text)
    if not claim and "</answer>" in text and "<answer>" in text:
        claim = text.split("<answer>")[-1].split("</answer>")[0]
    elif not claim and (sentences := _SENTENCE.findall(text)):
        claim = sentences[-1]
    return claim.replace("Final Answer:", "").strip()


def _in_first_box(text: str) -> str:
    begin = text.find(_BOX)
    if begin < 0:
        return ""
    begin += len(_BOX)
    depth = 1
    for index in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[begin:index]
    return text[begin:]


def _truths(question: Question) -> set[str]:
    """What counts: the answer as it is published, its letter, and the text of the choice with that letter."""
    published = question.published_answer if question.published_answer is not None else question.answer
    lettered = question.published_choices[: question.published_letters]
    name = letter_of_text(published, lettered) or published
    index = string.ascii_uppercase.find(name) if len(name) == 1 else -1
    text = question.published_choices[index] if 0 <= index < len(question.published_choices) else ""
    return {published, name, text} - {""}


def _same(claim: str, truth: str) -> bool:
    return claim.casefold() == truth.casefold() or same_by_mathruler(claim, truth)
