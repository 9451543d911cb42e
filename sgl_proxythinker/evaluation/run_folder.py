"""The folder of a run: answers are appended as they come, so that nothing is asked twice.

    manifest.json     what all answers have in common
    questions.jsonl   `QuestionRecord`s
    answers.jsonl     `AnswerRecord`s; of two about the same answer the later one counts
    behaviours.jsonl  `BehaviourRecord`s
    pictures/         of the questions, by their digests
    logs/             inspect-ai's own

A run that is killed while it writes leaves part of a line. It is passed over when the file is read, so that what it
would have said is asked again, and the next line begins behind it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from sgl_proxythinker.evaluation.errors import EvaluationError
from sgl_proxythinker.evaluation.questions import Question
from sgl_proxythinker.evaluation.records import AnswerHead, AnswerRecord, BehaviourRecord, Outcome, QuestionRecord

logger = logging.getLogger(__name__)

_Line = TypeVar("_Line", bound=BaseModel)
_Head = TypeVar("_Head", bound=AnswerHead)


class Asked(NamedTuple):
    """Which answer of a run it is."""

    benchmark: str
    setting: str
    question: str
    repeat: int


class RunFolder:
    """Where a run keeps what it has. Nothing is written before something is kept.

    Args:
        path: it may not be there yet.
    """

    def __init__(self, path: Path):
        self.path = path
        self._answers = _Lines(path / "answers.jsonl")
        self._behaviours = _Lines(path / "behaviours.jsonl")
        self._questions = _Lines(path / "questions.jsonl")

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Within it no other run writes into the folder.

        Raises:
            EvaluationError: one does already.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise EvaluationError(
                    f"another run writes into {self.path}: wait for its end, or name another --out."
                ) from None
            yield

    def add(self, answer: AnswerRecord) -> None:
        """Keep an answer. It is on the disk when this returns."""
        self._answers.add([answer])

    def answers(self) -> dict[Asked, AnswerRecord]:
        """The newest of each, with their texts: of a whole evaluation some hundred megabytes."""
        return _newest(self._answers.read(AnswerRecord))

    def heads(self) -> dict[Asked, AnswerHead]:
        """The newest of each, without what was written."""
        return _newest(self._answers.read(AnswerHead))

    def answered(self) -> set[Asked]:
        """Those that need not be asked again."""
        return {asked for asked, head in self.heads().items() if head.outcome != Outcome.FAILED}

    def write_questions(self, records: Iterable[QuestionRecord]) -> None:
        """Keep them; one that the folder has already takes its place."""
        kept = {(record.benchmark, record.id): record for record in self.questions()}
        for record in records:
            kept[record.benchmark, record.id] = record
        lines = "".join(record.model_dump_json() + "\n" for record in kept.values())
        self._replace(self._questions.path, lines.encode())

    def questions(self) -> list[QuestionRecord]:
        return list(self._questions.read(QuestionRecord))

    def add_behaviours(self, records: Iterable[BehaviourRecord]) -> None:
        """Keep what an observer has counted."""
        self._behaviours.add(records)

    def behaviours(self) -> list[BehaviourRecord]:
        """The newest of each answer and observer."""
        newest = {}
        for record in self._behaviours.read(BehaviourRecord):
            newest[record.benchmark, record.setting, record.question, record.repeat, record.by] = record
        return list(newest.values())

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        self._replace(self.path / "manifest.json", (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())

    def manifest(self) -> dict[str, Any] | None:
        """None before the first run.

        Raises:
            EvaluationError: it is no JSON any more.
        """
        path = self.path / "manifest.json"
        try:
            return json.loads(path.read_text("utf-8")) if path.exists() else None
        except ValueError as problem:
            raise EvaluationError(f"{path} can't be read: {problem}. Give the run another --out.") from problem

    def question_record(self, question: Question) -> QuestionRecord:
        """What a reader of the report sees of a question. Its pictures are kept."""
        names = []
        for picture in question.pictures:
            data = picture.read()
            names.append(picture.digest_of(data))
            if not (file := self.pictures / names[-1]).exists():
                self._replace(file, data)
        return QuestionRecord(
            benchmark=question.benchmark, id=question.id, text=question.text, kind=question.kind,
            answer=question.answer, choices=question.choices, groups=question.groups, pictures=tuple(names),
        )  # fmt: skip

    @staticmethod
    def _replace(path: Path, data: bytes) -> None:
        """Whole or not at all: a run may be killed at any time."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.write_bytes(data)
        part.replace(path)


def _newest(answers: Iterable[_Head]) -> dict[Asked, _Head]:
    return {Asked(each.benchmark, each.setting, each.question, each.repeat): each for each in answers}


class _Lines:
    """A file of one record a line, which only grows."""

    def __init__(self, path: Path):
        self.path = path
        self._is_torn: bool | None = None  # its last line has no end; None: nobody has looked

    def add(self, records: Iterable[BaseModel]) -> None:
        lines = b"".join(record.model_dump_json().encode() + b"\n" for record in records)
        if self._is_torn is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._is_torn = self._ends_within_a_line()
        begin = b"\n" if self._is_torn else b""
        self._is_torn = True  # if it is not written as a whole
        with self.path.open("ab") as file:
            file.write(begin + lines)
            file.flush()
            os.fsync(file.fileno())
        self._is_torn = False

    def read(self, kind: type[_Line]) -> Iterator[_Line]:
        """Those that are whole."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    record = kind.model_validate_json(line)
                except ValidationError:
                    logger.warning("line %d of %s is not whole: it is passed over", number, self.path)
                    continue
                yield record

    def _ends_within_a_line(self) -> bool:
        if not self.path.exists() or not self.path.stat().st_size:
            return False
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
