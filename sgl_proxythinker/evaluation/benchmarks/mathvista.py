"""MathVista (Lu et al. 2024): charts, figures, puzzles and mathematics with pictures; its `testmini` of 1,000."""

from __future__ import annotations

from collections.abc import Iterator

from sgl_proxythinker.evaluation.benchmarks.rows import Row, Source
from sgl_proxythinker.evaluation.benchmarks.wording import Wording
from sgl_proxythinker.evaluation.errors import DataError
from sgl_proxythinker.evaluation.grading.choices import letter
from sgl_proxythinker.evaluation.questions import AnswerKind, Question

NAME = "mathvista"
HUB = "AI4Math/MathVista"
_KINDS = {
    "text": AnswerKind.TEXT, "integer": AnswerKind.INTEGER, "float": AnswerKind.DECIMAL, "list": AnswerKind.NUMBERS,
}  # fmt: skip


def questions(source: Source, wording: Wording) -> Iterator[Question]:
    """In the words of the column `query`, which has a hint at the form of the answer, and the choices."""
    for row in source.rows(None, "testmini"):
        yield _question(row)


def _question(row: Row) -> Question:
    metadata = row["metadata"]
    groups = {name: str(metadata[name]) for name in ("task", "context", "grade") if metadata.get(name)}
    is_choice = row["question_type"] == "multi_choice"
    choices = tuple(str(choice) for choice in row["choices"] or ())
    if is_choice and row["answer"] not in choices:
        raise DataError(
            f"question {row['pid']} of {HUB} has the answer {row['answer']!r}, which is none of its choices"
        )
    return Question(
        NAME, str(row["pid"]), row["query"], row.pictures("decoded_image"),
        AnswerKind.CHOICE if is_choice else _KINDS[row["answer_type"]],
        letter(choices.index(row["answer"])) if is_choice else str(row["answer"]),
        choices,
        None if row.get("precision") is None else int(row["precision"]),
        groups,
        choices,
        row["answer"] if is_choice else None,
    )  # fmt: skip
