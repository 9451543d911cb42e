"""A question of a benchmark, and what kind of answer it has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class AnswerKind(StrEnum):
    """How a claim is compared with the answer."""

    CHOICE = "choice"  # one of the choices, by its letter or its text
    INTEGER = "integer"
    DECIMAL = "decimal"  # a number, to so many decimal places
    NUMBERS = "numbers"  # a list of them
    TEXT = "text"
    MATHEMATICS = "mathematics"  # an expression, or else a text


@dataclass(frozen=True)
class Question:
    """One question of a benchmark, as it is asked and graded."""

    benchmark: str
    id: str  # in its benchmark
    text: str  # as it is published, with its hint and its choices; what a preset adds comes behind it
    pictures: tuple[Picture, ...]  # in the order in which the text speaks of them; shown before the text
    kind: AnswerKind
    answer: str  # of a choice its letter
    choices: tuple[str, ...] = ()  # their texts, from A on
    decimal_places: int | None = None
    groups: dict[str, str] = field(default_factory=dict)  # what accuracy is also shown by: {"subject": "algebra"}
    published_choices: tuple[str, ...] = ()  # those that the paper's scripts know when they grade
    published_answer: str | None = None  # as the data set writes it, where `answer` is another form of it
    published_letters: int = 7  # so many of `published_choices` have a letter in the paper's scripts


@dataclass(frozen=True)
class Picture:
    """A picture as its data set has it: the file's bytes, read when they are needed."""

    read: Callable[[], bytes]

    @staticmethod
    def digest_of(data: bytes) -> str:
        """The beginning of the SHA-256 of a picture's file."""
        return hashlib.sha256(data).hexdigest()[:16]
