"""MathVision (Wang et al. 2024): 3,040 problems of mathematical competitions (`test`), of which `testmini` has 304."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sgl_proxythinker.evaluation.benchmarks.rows import Row, Source
from sgl_proxythinker.evaluation.benchmarks.wording import Wording
from sgl_proxythinker.evaluation.questions import AnswerKind, Question

NAME, MINI_NAME = "mathvision", "mathvision_mini"
HUB = "MathLLMs/MathVision"


def questions(source: Source, wording: Wording, name: str = NAME, split: str = "test") -> Iterator[Question]:
    """The data set has a question and its choices apart: a preset's words put them together."""
    for row in source.rows(None, split):
        yield _question(row, wording, name)


mini_questions = partial(questions, name=MINI_NAME, split="testmini")


def _question(row: Row, wording: Wording, name: str) -> Question:
    choices = tuple(str(choice) for choice in row["options"] or ())
    return Question(
        name, str(row["id"]), wording.text(row["question"], choices), row.pictures("decoded_image"),
        AnswerKind.CHOICE if choices else AnswerKind.MATHEMATICS,
        str(row["answer"]).strip(),
        choices,
        published_choices=choices, published_letters=5,
        groups={"subject": str(row["subject"]), "level": str(row["level"])},
    )  # fmt: skip
