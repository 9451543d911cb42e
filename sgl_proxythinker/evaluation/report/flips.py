"""Flipped answers: questions that a setting gets right more often than the baseline, or less often."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, zip_longest

from sgl_proxythinker.evaluation.records import AnswerRecord, Outcome
from sgl_proxythinker.evaluation.report.results import Results
from sgl_proxythinker.evaluation.summary import Summary

MOST_OF_A_PAIR = 40  # flipped questions of a setting and the baseline that a report shows


class Direction(StrEnum):
    """Which way an answer flipped, seen from the baseline."""

    GAINED = "gained"  # the baseline was wrong
    LOST = "lost"


@dataclass(frozen=True)
class Flip:
    """A question, with an answer of the baseline and one of the setting of which one is right and one wrong."""

    benchmark: str
    question: str
    setting: str
    direction: Direction
    gap: float  # how much more of its answers are right than of the baseline's; 1 and -1 with one answer each
    before: AnswerRecord  # the baseline's
    after: AnswerRecord


@dataclass(frozen=True)
class FlipsOfPair:
    """What a setting flipped, and how much of it is shown."""

    setting: str
    shown: list[Flip]
    count: int

    @property
    def left_out(self) -> int:
        return self.count - len(self.shown)


def flips_of(results: Results, most: int = MOST_OF_A_PAIR) -> list[FlipsOfPair]:
    """For each setting but the baseline its flipped questions by the last marked answer.

    Args:
        most: of a setting. Benchmarks and directions take turns, clear flips first, so that none crowds out another.
    """
    answers: dict[tuple[str, str, str], list[AnswerRecord]] = defaultdict(list)
    for answer in results.answers:
        if answer.outcome != Outcome.FAILED:
            answers[answer.setting, answer.benchmark, answer.question].append(answer)
    place = {benchmark: row for row, benchmark in enumerate(results.benchmarks)}
    pairs = []
    for setting in results.settings[1:]:
        kinds: dict[tuple[str, Direction], list[Flip]] = defaultdict(list)
        for summary in results.summaries(setting):
            for flip in _flips(results, answers, summary):
                kinds[flip.benchmark, flip.direction].append(flip)
        clear_first = [sorted(flips, key=lambda flip: -abs(flip.gap)) for flips in kinds.values()]
        in_turn = [flip for flip in chain.from_iterable(zip_longest(*clear_first)) if flip is not None]
        shown = sorted(in_turn[:most], key=lambda flip: (place[flip.benchmark], flip.direction))
        pairs.append(FlipsOfPair(setting, shown, len(in_turn)))
    return pairs


def _flips(results: Results, answers: dict[tuple[str, str, str], list[AnswerRecord]], after: Summary) -> Iterator[Flip]:
    baseline = results.cells.get((results.baseline, after.benchmark))
    before = baseline.summary.right["last"] if baseline and baseline.summary else {}
    for question, share in after.right["last"].items():
        gap = share - before.get(question, share)
        if gap:
            gained = gap > 0
            yield Flip(
                after.benchmark, question, after.setting, Direction.GAINED if gained else Direction.LOST, gap,
                _first(answers[results.baseline, after.benchmark, question], right=not gained),
                _first(answers[after.setting, after.benchmark, question], right=gained),
            )  # fmt: skip


def _first(answers: list[AnswerRecord], right: bool) -> AnswerRecord:
    return next(answer for answer in answers if answer.last.right == right)
