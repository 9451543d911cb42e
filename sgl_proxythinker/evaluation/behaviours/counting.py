"""Reasoning behaviours in a run's answers: who counts what, and what is kept of it in the run's folder.

An answer without a text shows no behaviour, and no judge is asked about it. A request that failed is no answer.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from tqdm.asyncio import tqdm

from sgl_proxythinker.evaluation.behaviours import patterns
from sgl_proxythinker.evaluation.behaviours.judge import Judge
from sgl_proxythinker.evaluation.behaviours.verdict import JudgeError
from sgl_proxythinker.evaluation.records import AnswerRecord, Behaviour, BehaviourRecord, Outcome
from sgl_proxythinker.evaluation.run_folder import Asked, RunFolder

PATTERNS = "patterns"  # how this observer is named


def count_by_patterns(folder: RunFolder) -> None:
    """Count all answers anew, and keep what is not kept yet: patterns change from one version to the next."""
    kept = _kept(folder, PATTERNS)
    records = (_record(answer, PATTERNS, patterns.count(answer.text)) for answer in _answers(folder))
    folder.add_behaviours(record for record in records if record.counts != kept.get(_asked(record)))


class Judged(NamedTuple):
    """What came of asking a judge."""

    counted: int  # answers, those of earlier runs left out
    shortened: int  # of these the answers that were too long to be read in full
    failures: list[str]  # why others were not counted; they are asked about by the next run


async def count_by_judge(folder: RunFolder, judge: Judge) -> Judged:
    """Ask a judge about the answers that it has not counted, and keep each verdict as it comes."""
    kept = _kept(folder, judge.name)
    questions = {(question.benchmark, question.id): question.text for question in folder.questions()}
    waiting = [answer for answer in _answers(folder) if _asked(answer) not in kept]

    async def ask(answer: AnswerRecord) -> str | None:
        try:
            counts = (
                await judge.count(questions.get((answer.benchmark, answer.question), ""), answer.text)
                if answer.text.strip() else dict.fromkeys(Behaviour, 0)
            )  # fmt: skip
        except JudgeError as error:
            return f"{answer.benchmark} {answer.question}, {answer.setting}, repeat {answer.repeat}: {error}"
        folder.add_behaviours([_record(answer, judge.name, counts)])
        return None

    # Tasks, because tqdm begins coroutines in the order of a set; asked about are the answers in the run's order.
    asking = [asyncio.create_task(ask(answer)) for answer in waiting]
    failures = await tqdm.gather(*asking, desc=judge.name, unit="answer")
    counted = [answer for answer, failure in zip(waiting, failures, strict=True) if failure is None]
    shortened = sum(judge.shown(answer.text) != answer.text for answer in counted)
    return Judged(len(counted), shortened, [failure for failure in failures if failure is not None])


def _answers(folder: RunFolder) -> list[AnswerRecord]:
    return [answer for answer in folder.answers().values() if answer.outcome != Outcome.FAILED]


def _kept(folder: RunFolder, by: str) -> dict[Asked, dict[Behaviour, int]]:
    return {_asked(record): record.counts for record in folder.behaviours() if record.by == by}


def _asked(record: AnswerRecord | BehaviourRecord) -> Asked:
    return Asked(record.benchmark, record.setting, record.question, record.repeat)


def _record(answer: AnswerRecord, by: str, counts: dict[Behaviour, int]) -> BehaviourRecord:
    return BehaviourRecord(
        benchmark=answer.benchmark, question=answer.question, setting=answer.setting, repeat=answer.repeat,
        by=by, counts=counts,
    )  # fmt: skip
