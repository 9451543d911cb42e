"""The tiny family's held-out problems: a benchmark that needs no download, for the models that this project ships."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial

from sgl_proxythinker.evaluation.benchmarks.rows import Source
from sgl_proxythinker.evaluation.benchmarks.wording import Wording
from sgl_proxythinker.evaluation.questions import AnswerKind, Picture, Question
from sgl_proxythinker.tiny_family.problems import Problem, problems
from sgl_proxythinker.tiny_family.wordings import TEST

NAME = "tiny_family"
COUNT = 1000


def questions(source: Source, wording: Wording) -> Iterator[Question]:
    """The first `COUNT` problems of the test split. Nothing is read."""
    for index, problem in enumerate(problems(TEST, COUNT, 0)):
        yield Question(
            NAME, str(index), problem.question, (Picture(partial(_file, problem)),), AnswerKind.TEXT, problem.answer,
            groups={"kind": problem.kind, "level": str(problem.level)},
        )  # fmt: skip


def _file(problem: Problem) -> bytes:
    buffer = io.BytesIO()
    problem.picture().save(buffer, "PNG")
    return buffer.getvalue()
