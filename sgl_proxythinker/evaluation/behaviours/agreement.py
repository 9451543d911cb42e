"""How far two observers of reasoning behaviours agree, and how an observer fares against labels.

An observer's counts are one `{behaviour: occurrences}` for each answer. A behaviour is present in an answer if its
count is not 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from sgl_proxythinker.evaluation.records import Behaviour, BehaviourRecord
from sgl_proxythinker.evaluation.statistics import wilson
from sgl_proxythinker.evaluation.summary import Share

Counts = Mapping[Behaviour, int]


class Agreement(NamedTuple):
    """Two observers of the same answers, on one behaviour."""

    answers: int
    same: float  # share of the answers where both say present, or both absent
    kappa: float | None  # of presence; None where it is not defined
    difference: float  # of the two counts of an answer, without its sign, on average


def agreement(one: Sequence[Counts], other: Sequence[Counts]) -> dict[Behaviour, Agreement]:
    """Agreement on each behaviour.

        kappa = (same - chance) / (1 - chance)
        chance = p q + (1 - p) (1 - q), with p and q the shares in which each observer says present

    (Cohen 1960, "A coefficient of agreement for nominal scales"). It is 1 where they always agree and 0 where they
    agree as often as by chance. Where both say one and the same of all answers, chance is 1 and kappa is not defined.

    Args:
        one, other: of the same answers in the same order, at least one.

    Raises:
        ValueError: there is no answer, or not as many of each.
    """
    if not one or len(one) != len(other):
        raise ValueError(
            f"agreement is of the same answers, and of at least one: there are {len(one)} and {len(other)}"
        )
    return {
        behaviour: _agreement([(mine[behaviour], others[behaviour]) for mine, others in zip(one, other, strict=True)])
        for behaviour in Behaviour
    }


def _agreement(counts: Sequence[tuple[int, int]]) -> Agreement:
    answers = len(counts)
    same = sum(bool(one) == bool(other) for one, other in counts)
    ones, others = (sum(map(bool, each)) for each in zip(*counts, strict=True))
    # In whole numbers, so that "not defined" is no question of rounding: chance is by_chance / answers².
    by_chance = ones * others + (answers - ones) * (answers - others)
    kappa = (same * answers - by_chance) / (answers**2 - by_chance) if by_chance < answers**2 else None
    return Agreement(answers, same / answers, kappa, sum(abs(one - other) for one, other in counts) / answers)


class Accuracy(NamedTuple):
    """How an observer finds the answers in which a behaviour is present by their labels."""

    found: int  # present, by both
    wrongly: int  # by the observer alone
    missed: int  # by the label alone

    @property
    def precision(self) -> Share | None:
        """Share of what it finds that is there, with Wilson's 95 % interval; None where it finds nothing."""
        return _share(self.found, self.found + self.wrongly)

    @property
    def recall(self) -> Share | None:
        """Share of what is there that it finds, with Wilson's 95 % interval; None where there is nothing."""
        return _share(self.found, self.found + self.missed)


def accuracy(observed: Sequence[Counts], labels: Sequence[Counts]) -> dict[Behaviour, Accuracy]:
    """Of each behaviour, over the same answers in the same order."""
    measured = {}
    for behaviour in Behaviour:
        pairs = [(bool(o[behaviour]), bool(label[behaviour])) for o, label in zip(observed, labels, strict=True)]
        measured[behaviour] = Accuracy(*(pairs.count(pair) for pair in ((True, True), (True, False), (False, True))))
    return measured


def _share(part: int, whole: int) -> Share | None:
    return Share(part / whole, *wilson(part, whole)) if whole else None


def between_observers(records: Iterable[BehaviourRecord]) -> dict[tuple[str, str], dict[Behaviour, Agreement]]:
    """Agreement of each two observers of a run, over the answers that both have counted, where there are any."""
    counted: dict[str, dict[tuple[str, str, str, int], Counts]] = defaultdict(dict)
    for record in records:
        answer = record.benchmark, record.setting, record.question, record.repeat
        counted[record.by][answer] = record.counts
    agreements = {}
    for one, other in combinations(counted, 2):
        if both := [answer for answer in counted[one] if answer in counted[other]]:
            mine, others = ([counted[observer][answer] for answer in both] for observer in (one, other))
            agreements[one, other] = agreement(mine, others)
    return agreements
