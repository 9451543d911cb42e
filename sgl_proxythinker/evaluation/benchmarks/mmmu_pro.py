"""MMMU-Pro (Yue et al. 2024): university subjects; the mean of 1,730 with ten choices and the same ones as pictures."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sgl_proxythinker.evaluation.benchmarks.rows import Row, Source
from sgl_proxythinker.evaluation.benchmarks.wording import Wording
from sgl_proxythinker.evaluation.errors import DataError
from sgl_proxythinker.evaluation.questions import AnswerKind, Question

NAME = "mmmu_pro"
HUB = "MMMU/MMMU_Pro"
_INSTRUCTION = "Answer with the option letter from the given choices."
# As the benchmark's own prompts and the paper's scripts put it.
_WORDING = Wording(
    with_choices=f"{{question}}\n{{choices}}\n{_INSTRUCTION}", without_choices="{question}", choice="{letter}. {text}"
)
_PICTURE = re.compile(r"<image\s+(\d+)>")


def questions(source: Source, wording: Wording) -> Iterator[Question]:
    """Each question twice: with its choices in words, and as one picture of all of it."""
    for row in source.rows("standard (10 options)", "test"):
        yield _in_words(row)
    for row in source.rows("vision", "test"):
        yield _question(row, "vision", _INSTRUCTION, row.pictures("image"))


def _in_words(row: Row) -> Question:
    text = _WORDING.text(row["question"], _choices(row))
    # Pictures come in the order in which the text speaks of them, some of them twice.
    columns = [f"image_{number}" for number in _PICTURE.findall(text)]
    return _question(row, "standard", _PICTURE.sub("<image>", text), row.pictures(*columns))


def _question(row: Row, setting: str, text: str, pictures: tuple) -> Question:
    return Question(
        NAME, f"{setting}/{row['id']}", text, pictures, AnswerKind.CHOICE, str(row["answer"]).strip(), _choices(row),
        groups={"setting": setting, "subject": str(row["subject"])},
        # The scripts hold the column as it is written, so that each of its characters is a choice there.
        published_choices=tuple(row["options"]), published_letters=5,
    )  # fmt: skip


def _choices(row: Row) -> tuple[str, ...]:
    """Its column holds a list as Python writes it."""
    try:
        listed = ast.literal_eval(row["options"])
    except (ValueError, SyntaxError):
        listed = None
    if not isinstance(listed, list):
        raise DataError(f"question {row['id']} of {HUB} has options that are no list: {row['options']!r}")
    return tuple(map(str, listed))
