"""The folder of a run: answers are appended as they come, so that nothing is asked twice.

manifest.json     what all answers have in common
questions.jsonl   `QuestionRecord`s
answers.jsonl     `AnswerRecord`s; of two about the same answer the later one counts
pictures/         of the questions, by their digests
logs/             inspect-ai's own
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sgl_proxythinker.evaluation.questions import Question
from sgl_proxythinker.evaluation.records import AnswerRecord, BehaviourRecord, Outcome, QuestionRecord


class Asked(NamedTuple):
    """Which answer of a run it is."""

    benchmark: str
    setting: str
    question: str
    repeat: int


class RunFolder:
    """Where a run keeps what it has.

    Args:
        path: it is made if it is not there.
    """

    def __init__(self, path: Path):
        self.path = path
        self.pictures.mkdir(parents=True, exist_ok=True)
        self._answers = path / "answers.jsonl"
        self._behaviours = path / "behaviours.jsonl"
        for file in (self._answers, self._behaviours):
            _end_a_torn_line(file)

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def add(self, answer: AnswerRecord) -> None:
        """Keep an answer. It is on the disk when this returns, in one piece."""
        with self._answers.open("ab") as file:
            file.write(answer.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def answers(self) -> dict[Asked, AnswerRecord]:
        """The newest of each."""
        return {
            Asked(answer.benchmark, answer.setting, answer.question, answer.repeat): answer
            for answer in map(AnswerRecord.model_validate_json, self._lines(self._answers))
        }

    def answered(self) -> set[Asked]:
        """Those that need not be asked again."""
        return {asked for asked, answer in self.answers().items() if answer.outcome != Outcome.FAILED}

    def write_questions(self, questions: Iterable[Question]) -> None:
        """Keep them, with their pictures; one that the folder has already takes its place."""
        records = {(record.benchmark, record.id): record for record in self.questions()}
        for record in map(self.question_record, questions):
            records[record.benchmark, record.id] = record
        self._replace("questions.jsonl", "".join(record.model_dump_json() + "\n" for record in records.values()))

    def questions(self) -> list[QuestionRecord]:
        return [QuestionRecord.model_validate_json(line) for line in self._lines(self.path / "questions.jsonl")]

    def add_behaviours(self, records: Iterable[BehaviourRecord]) -> None:
        """Keep what an observer has counted."""
        with self._behaviours.open("a", encoding="utf-8") as file:
            file.writelines(record.model_dump_json() + "\n" for record in records)

    def behaviours(self) -> list[BehaviourRecord]:
        """The newest of each answer and observer."""
        newest = {}
        for record in map(BehaviourRecord.model_validate_json, self._lines(self._behaviours)):
            newest[record.benchmark, record.setting, record.question, record.repeat, record.by] = record
        return list(newest.values())

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        self._replace("manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")

    def manifest(self) -> dict[str, Any] | None:
        """None before the first run."""
        path = self.path / "manifest.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else None

    def question_record(self, question: Question) -> QuestionRecord:
        """What a reader of the report sees of a question. Its pictures are kept."""
        names = []
        for picture in question.pictures:
            names.append(picture.digest())
            if not (file := self.pictures / names[-1]).exists():
                file.write_bytes(picture.read())
        return QuestionRecord(
            benchmark=question.benchmark, id=question.id, text=question.text, kind=question.kind,
            answer=question.answer, choices=question.choices, groups=question.groups, pictures=tuple(names),
        )  # fmt: skip

    def _replace(self, name: str, text: str) -> None:
        """Whole or not at all: a run may be killed at any time."""
        part = self.path / f"{name}.part"
        part.write_text(text, "utf-8")
        part.replace(self.path / name)

    @staticmethod
    def _lines(path: Path) -> Iterator[str]:
        if path.exists():
            with path.open(encoding="utf-8") as file:
                yield from file


def _end_a_torn_line(path: Path) -> None:
    """A run that was killed while it wrote leaves half a line: what it would have said is asked again."""
    if not path.exists():
        return
    held = path.read_bytes()
    whole = held[: held.rfind(b"\n") + 1]
    if whole != held:
        path.write_bytes(whole)
