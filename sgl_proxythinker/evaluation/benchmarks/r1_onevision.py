"""R1-Onevision-Bench (Yang et al. 2025): 942 questions of mathematics, physics, chemistry, biology and deduction."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from functools import partial

from sgl_proxythinker.evaluation.benchmarks.listed_choices import choices_in
from sgl_proxythinker.evaluation.benchmarks.rows import Row, Source
from sgl_proxythinker.evaluation.benchmarks.wording import Wording
from sgl_proxythinker.evaluation.errors import DataError
from sgl_proxythinker.evaluation.questions import AnswerKind, Picture, Question

NAME = "r1_onevision"
HUB = "Fancy-MLLM/R1-Onevision-Bench"
_LETTER = re.compile(r"[A-H]")


def questions(source: Source, wording: Wording) -> Iterator[Question]:
    """In the words of the column `question`, hint and choices included. One that has no answer is left out."""
    for row in source.rows(None, "train"):
        if row["answer"] is not None:
            yield _question(row)


def _question(row: Row) -> Question:
    answer = str(row["answer"]).strip()
    is_choice = _LETTER.fullmatch(answer) is not None
    return Question(
        NAME, str(row["index"]), row["question"], _pictures(row),
        AnswerKind.CHOICE if is_choice else AnswerKind.MATHEMATICS,
        answer,
        choices_in(row["question"]) if is_choice else (),
        published_choices=tuple(map(str, row.get("choices"))) if isinstance(row.get("choices"), list) else (),
        groups={"category": str(row["category"]), "level": str(row["level"])},
    )  # fmt: skip


def _pictures(row: Row) -> tuple[Picture, ...]:
    """Its column is text in base64."""
    if not row["image"]:
        return ()
    try:
        base64.b64decode(row["image"], validate=True)
    except binascii.Error as problem:
        raise DataError(f"question {row['index']} of {HUB} has a picture that is no base64: {problem}") from problem
    return (Picture(partial(base64.b64decode, row["image"])),)
