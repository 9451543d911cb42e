"""All numbers of a report: each setting on each benchmark, and how it compares with the baseline."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from sgl_proxythinker.evaluation.errors import EvaluationError
from sgl_proxythinker.evaluation.records import AnswerRecord, Outcome, QuestionRecord
from sgl_proxythinker.evaluation.report.joined import join
from sgl_proxythinker.evaluation.run_folder import RunFolder
from sgl_proxythinker.evaluation.statistics import Paired
from sgl_proxythinker.evaluation.summary import (
    RULES,
    BehaviourSummary,
    Rule,
    Summary,
    compare_settings,
    macro_average,
    summarize,
    summarize_behaviours,
)

SIGNIFICANT = 0.05  # a p below it, with an interval that leaves out 0, is called a difference
WITH_AMATEUR, WITHOUT_AMATEUR = "alpha-", "no-amateur-"


class Verdict(StrEnum):
    """What the paired test says of a setting against the baseline."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "no difference shown"


@dataclass(frozen=True)
class Cell:
    """A setting on a benchmark."""

    summary: Summary | None  # None: no request was answered
    outcomes: Counter[Outcome]  # of all requests
    of_questions: int  # that the benchmark has in this run
    asked: int  # of these questions, answered or failed
    of_answers: int  # that are wanted: one for each question and repeat
    against_baseline: dict[Rule, Paired]  # none for the baseline, nor without a question that both answered

    @property
    def failed(self) -> int:
        return self.outcomes[Outcome.FAILED]

    @property
    def questions(self) -> int:
        """Those that are answered."""
        return self.summary.questions if self.summary else 0

    @property
    def missing(self) -> int:
        """Answers that were not asked for yet."""
        return max(0, self.of_answers - self.outcomes.total())

    @property
    def problems(self) -> list[tuple[str, int]]:
        """What a reader of the accuracy must know of, where it is not zero."""
        counts = [
            ("missing", self.missing),
            ("failed", self.failed),
            ("empty", self.outcomes[Outcome.EMPTY]),
            ("cut off", self.outcomes[Outcome.CUT_OFF]),
            ("unmarked", self.summary.unmarked if self.summary else 0),
        ]
        return [(name, count) for name, count in counts if count]

    def verdict(self, rule: Rule) -> Verdict:
        paired = self.against_baseline[rule]
        low, high = paired.interval
        if paired.p >= SIGNIFICANT or low <= 0 <= high:
            return Verdict.UNDECIDED
        return Verdict.BETTER if paired.difference > 0 else Verdict.WORSE


@dataclass(frozen=True)
class Results:
    """What a report shows."""

    baseline: str
    benchmarks: list[str]
    settings: list[str]  # the baseline first, then by strength
    cells: dict[tuple[str, str], Cell]  # of a setting and a benchmark; absent where nothing was asked
    behaviours: list[BehaviourSummary]
    manifest: dict[str, Any]
    own: frozenset[str]  # settings of the run itself; the others are other servers'
    beside: dict[str, dict[str, Any]]  # manifests of other runs, by the names of their settings
    answers: list[AnswerRecord]
    questions: dict[tuple[str, str], QuestionRecord]  # by benchmark and id

    @property
    def failed(self) -> int:
        return sum(cell.failed for (setting, _), cell in self.cells.items() if setting in self.own)

    @property
    def missing(self) -> int:
        """Answers that this run did not ask for yet."""
        return sum(cell.missing for (setting, _), cell in self.cells.items() if setting in self.own)

    @cached_property
    def repeats(self) -> int:
        """Answers to a question, at most."""
        return max(answer.repeat for answer in self.answers)

    @property
    def comparisons(self) -> int:
        """Paired tests in the table of one rule."""
        return sum(bool(cell.against_baseline) for cell in self.cells.values())

    @property
    def unfinished(self) -> str:
        """What is left of this run, in words; "" of a finished one."""
        failed = f"{self.failed:,} request{'s' if self.failed != 1 else ''} failed" if self.failed else ""
        missing = f"{self.missing:,} answer{'s' if self.missing != 1 else ''} missing" if self.missing else ""
        return ", ".join(part for part in (failed, missing) if part)

    def size_of(self, benchmark: str) -> int:
        """Questions of a benchmark in this run."""
        return next(cell.of_questions for (_, other), cell in self.cells.items() if other == benchmark)

    def summaries(self, setting: str) -> list[Summary]:
        """One for each benchmark, in their order, as far as there are answers."""
        cells = [self.cells.get((setting, benchmark)) for benchmark in self.benchmarks]
        return [cell.summary for cell in cells if cell and cell.summary]

    def of_benchmark(self, benchmark: str) -> list[Summary]:
        """One for each setting that has answers."""
        cells = [self.cells.get((setting, benchmark)) for setting in self.settings]
        return [cell.summary for cell in cells if cell and cell.summary]

    def macro(self, setting: str, rule: Rule) -> float | None:
        """None unless the setting was asked every question: means over others do not compare."""
        cells = [self.cells.get((setting, benchmark)) for benchmark in self.benchmarks]
        if not all(cell is not None and cell.summary and cell.asked == cell.of_questions for cell in cells):
            return None
        return macro_average(self.summaries(setting), rule)

    def macro_gain(self, setting: str, rule: Rule) -> float | None:
        """How far the macro average is above the baseline's."""
        mine, others = self.macro(setting, rule), self.macro(self.baseline, rule)
        return None if mine is None or others is None or setting == self.baseline else mine - others

    def best(self, benchmark: str, rule: Rule) -> float:
        """The highest accuracy on a benchmark; not a number where all are the same, or nothing is answered."""
        return _highest([one.accuracy[rule].value for one in self.of_benchmark(benchmark)])

    def best_macro(self, rule: Rule) -> float:
        averages = [self.macro(setting, rule) for setting in self.settings]
        return _highest([average for average in averages if average is not None])

    def group_sizes(self, benchmark: str, group: str) -> Counter[str]:
        """Questions of each value of a group, as "algebra" of "subject"."""
        of_benchmark = [question for question in self.questions.values() if question.benchmark == benchmark]
        return Counter(question.groups[group] for question in of_benchmark if group in question.groups)


def _highest(values: Sequence[float]) -> float:
    return max(values) if len(set(values)) > 1 else math.nan


def results_of(folder: RunFolder, baseline: str, beside: Sequence[RunFolder] = ()) -> Results:
    """Everything a report needs of a run's folder.

    Args:
        beside: other runs, whose settings are rows too.

    Raises:
        EvaluationError: there is no answer yet, or none under `baseline`; runs that can't be compared.
    """
    joined = join(folder, beside)
    answers, manifest = joined.answers, joined.manifest
    questions = {(question.benchmark, question.id): question for question in joined.questions}
    summaries = {(one.setting, one.benchmark): one for one in summarize(answers, questions.values())}
    outcomes: dict[tuple[str, str], Counter[Outcome]] = {}
    asked: dict[tuple[str, str], set[str]] = defaultdict(set)
    for answer in answers:
        asked[answer.setting, answer.benchmark].add(answer.question)
        outcomes.setdefault((answer.setting, answer.benchmark), Counter())[answer.outcome] += 1
    if not summaries:
        raise EvaluationError(
            f"{folder.path} has no answer to report"
            + (f": all {len(answers)} requests failed." if answers else ": nothing was asked yet.")
        )
    answered = list(dict.fromkeys(setting for setting, _ in summaries))
    if baseline not in answered:
        raise EvaluationError(
            f"{folder.path} has no answer under the baseline {baseline}, but under {', '.join(answered)}: "
            "name one of these as the baseline."
        )
    listed = dict.fromkeys([*(benchmark for benchmark, _ in questions), *(benchmark for _, benchmark in outcomes)])
    benchmarks = [benchmark for benchmark in listed if any(other == benchmark for _, other in outcomes)]
    repeats = _repeats_of(manifest, answers)
    sizes = {benchmark: _questions_of(benchmark, questions, summaries.values()) for benchmark in benchmarks}
    return Results(
        baseline, benchmarks, _in_order({setting for setting, _ in outcomes}, baseline, joined.own),
        {
            (setting, benchmark): Cell(
                summaries.get((setting, benchmark)), counts, sizes[benchmark],
                len(asked[setting, benchmark]), sizes[benchmark] * repeats,
                _against(summaries.get((setting, benchmark)), summaries.get((baseline, benchmark))),
            )
            for (setting, benchmark), counts in outcomes.items()
        },
        summarize_behaviours(joined.behaviours), manifest, joined.own, joined.beside,
        answers, questions,
    )  # fmt: skip


def strength_in(setting: str, prefix: str) -> float | None:
    """0.5 of `alpha-0.5`; None of a setting whose name is no such prefix and number."""
    try:
        strength = float(setting.removeprefix(prefix)) if setting.startswith(prefix) else math.nan
    except ValueError:
        return None
    return strength if math.isfinite(strength) else None


def _repeats_of(manifest: Mapping[str, Any], answers: Sequence[AnswerRecord]) -> int:
    """Answers that each question is to have."""
    sampling = manifest.get("run", {}).get("sampling", {})
    return sampling.get("repeats") or max((answer.repeat for answer in answers), default=1)


def _questions_of(benchmark: str, questions: Iterable[tuple[str, str]], summaries: Iterable[Summary]) -> int:
    """Of a folder that lost its questions those that some setting answered."""
    listed = sum(other == benchmark for other, _ in questions)
    return max(listed, *(one.questions for one in summaries if one.benchmark == benchmark), 0)


def _against(one: Summary | None, baseline: Summary | None) -> dict[Rule, Paired]:
    if one is None or baseline is None or one is baseline or not one.right["last"].keys() & baseline.right["last"]:
        return {}
    return {rule: compare_settings(one, baseline, rule) for rule in RULES}


def _in_order(settings: Iterable[str], baseline: str, own: frozenset[str]) -> list[str]:
    """The baseline, the strengths with the amateur, those without, the others by name, and those of other servers."""

    def place(setting: str) -> tuple[int, float, str]:
        if setting not in own:
            return 4, 0.0, setting
        for row, prefix in enumerate((WITH_AMATEUR, WITHOUT_AMATEUR), 1):
            if (strength := strength_in(setting, prefix)) is not None:
                return row, strength, setting
        return 3, 0.0, setting

    ordered: Sequence[str] = sorted(settings, key=place)
    return [baseline, *(setting for setting in ordered if setting != baseline)]
