"""MathVerse (Zhang et al. 2024): 788 problems in five versions that say more or less of the picture in words."""

from __future__ import annotations

from collections.abc import Iterator

from sgl_proxythinker.evaluation.benchmarks.listed_choices import choices_in
from sgl_proxythinker.evaluation.benchmarks.rows import Row, Source
from sgl_proxythinker.evaluation.benchmarks.wording import Wording
from sgl_proxythinker.evaluation.questions import AnswerKind, Question

NAME = "mathverse"
HUB = "AI4Math/MathVerse"


def questions(source: Source, wording: Wording) -> Iterator[Question]:
    """In the words of the column `query_cot`, which asks for a chain of thought and has the choices."""
    for row in source.rows("testmini", "testmini"):
        yield _question(row)


def _question(row: Row) -> Question:
    metadata = row["metadata"]
    is_choice = row["question_type"] == "multi-choice"
    return Question(
        NAME, str(row["sample_index"]), row["query_cot"], row.pictures("image"),
        AnswerKind.CHOICE if is_choice else AnswerKind.MATHEMATICS,
        str(row["answer"]).strip(),
        choices_in(row["question"]) if is_choice else (),
        groups={"version": row["problem_version"]} | {name: metadata[name] for name in ("subject", "subfield")},
    )  # fmt: skip
