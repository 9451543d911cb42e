"""From answers to numbers: accuracy by both rules, what came of the requests, pass@k, and settings compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sgl_proxythinker.evaluation.records import AnswerRecord, Behaviour, BehaviourRecord, Outcome, QuestionRecord
from sgl_proxythinker.evaluation.statistics import Paired, bootstrap, compare, mean_interval, pass_at, wilson

Rule = Literal["published", "last"]
RULES: tuple[Rule, ...] = ("published", "last")


class Share(NamedTuple):
    """A share, or another mean, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """What a setting's answers to a benchmark are worth. Failed requests are counted, and are in no share."""

    benchmark: str
    setting: str
    questions: int  # with an answer
    outcomes: dict[Outcome, int]  # of all requests
    unmarked: int  # answers that were not cut off and claim nothing
    accuracy: dict[Rule, Share]
    right: dict[Rule, dict[str, float]]  # of each question the share of its answers that are right
    groups: dict[str, dict[str, Share]]  # accuracy by the last marked answer: {"subject": {"algebra": ...}}
    pass_at: dict[Rule, dict[int, Share]]  # for k up to the answers that each question has
    tokens: float  # of an answer, on average
    seconds: float

    @property
    def failed(self) -> int:
        return self.outcomes[Outcome.FAILED]


@dataclass(frozen=True)
class BehaviourSummary:
    """How often a setting's answers show each behaviour, as one observer counts."""

    setting: str
    by: str  # "patterns", or the name of a judge
    answers: int
    counts: dict[Behaviour, Share]  # occurrences in an answer, on average


def summarize_behaviours(records: Iterable[BehaviourRecord]) -> list[BehaviourSummary]:
    """One summary for each setting and observer, over all benchmarks."""
    seen: dict[tuple[str, str], list[BehaviourRecord]] = defaultdict(list)
    for record in records:
        seen[record.setting, record.by].append(record)
    summaries = []
    for (setting, by), each in seen.items():
        of_question: dict[tuple[str, str], list[BehaviourRecord]] = defaultdict(list)
        for record in each:
            of_question[record.benchmark, record.question].append(record)
        shares = {}
        for behaviour in Behaviour:
            # Answers to one question are not independent.
            means = [_mean([record.counts[behaviour] for record in records]) for records in of_question.values()]
            shares[behaviour] = Share(_mean(means), *bootstrap(means))
        summaries.append(BehaviourSummary(setting, by, len(each), shares))
    return summaries


def summarize(answers: Iterable[AnswerRecord], questions: Iterable[QuestionRecord]) -> list[Summary]:
    """One summary for each benchmark and setting that has an answer, in the order in which they first come.

    Args:
        answers: at most one of each question, setting and repeat.
        questions: of these benchmarks; those that answers are about.
    """
    groups = {(question.benchmark, question.id): question.groups for question in questions}
    asked: dict[tuple[str, str], list[AnswerRecord]] = defaultdict(list)
    for answer in answers:
        asked[answer.benchmark, answer.setting].append(answer)
    return [
        _summary(benchmark, setting, given, {a.question: groups.get((benchmark, a.question), {}) for a in given})
        for (benchmark, setting), given in asked.items()
        if any(answer.outcome != Outcome.FAILED for answer in given)
    ]


def compare_settings(one: Summary, other: Summary, rule: Rule) -> Paired:
    """How much more `one` has right than `other`, over the questions that both answered.

    Raises:
        ValueError: there are none.
    """
    mine, others = one.right[rule], other.right[rule]
    both = [question for question in mine if question in others]
    if not both:
        raise ValueError(f"{one.setting} and {other.setting} have no question of {one.benchmark} in common")
    return compare([mine[question] - others[question] for question in both])


def macro_average(summaries: Sequence[Summary], rule: Rule) -> float:
    """The mean of a setting's accuracies, each benchmark counting the same, as the paper averages."""
    return sum(summary.accuracy[rule].value for summary in summaries) / len(summaries)


def _summary(
    benchmark: str, setting: str, requests: Sequence[AnswerRecord], groups: dict[str, dict[str, str]]
) -> Summary:
    answers = [answer for answer in requests if answer.outcome != Outcome.FAILED]
    right_of = {rule: _by_question(answers, rule) for rule in RULES}
    in_group: dict[str, dict[str, dict[str, list[bool]]]] = defaultdict(lambda: defaultdict(dict))
    for question, rights in right_of["last"].items():
        for name, value in groups[question].items():
            in_group[name][value][question] = rights
    return Summary(
        benchmark, setting, len(right_of["last"]), Counter(answer.outcome for answer in requests),
        sum(answer.outcome == Outcome.ANSWERED and not answer.last.claim for answer in answers),
        accuracy={rule: _accuracy(right_of[rule]) for rule in RULES},
        right={rule: {name: _mean(rights) for name, rights in right_of[rule].items()} for rule in RULES},
        groups={name: {value: _accuracy(rights) for value, rights in sorted(values.items())}
                for name, values in in_group.items()},
        pass_at={rule: _pass_at(right_of[rule]) for rule in RULES},
        tokens=_mean([answer.tokens for answer in answers]),
        seconds=_mean([answer.seconds for answer in answers]),
    )  # fmt: skip


def _by_question(answers: Sequence[AnswerRecord], rule: Rule) -> dict[str, list[bool]]:
    rights: dict[str, list[bool]] = defaultdict(list)
    for answer in answers:
        rights[answer.question].append(getattr(answer, rule).right)
    return rights


def _accuracy(rights: dict[str, list[bool]]) -> Share:
    """Wilson's interval for one answer a question; answers to one question are not independent."""
    counts = [len(each) for each in rights.values()]
    right = sum(map(sum, rights.values()))
    if max(counts) == 1:
        return Share(right / len(counts), *wilson(right, len(counts)))
    shares = [_mean(each) for each in rights.values()]
    return Share(_mean(shares), *mean_interval(shares))


def _pass_at(rights: dict[str, list[bool]]) -> dict[int, Share]:
    """Unbiased, for each k that every question has answers for."""
    most = min(map(len, rights.values()))
    shares = {}
    for k in range(1, most + 1):
        values = [pass_at(k, len(each), sum(each)) for each in rights.values()]
        shares[k] = Share(_mean(values), *mean_interval(values))
    return shares


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
