"""Shares of right answers with their intervals, pass@k, and settings compared on the same questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z = 1.959964  # of 95 %
BOOTSTRAP_DRAWS = 2000
DRAWN_AT_ONCE = 2_000_000  # values, so that memory stays small


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    if not count:
        return 0.0, 1.0
    share, z2 = right / count, Z * Z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def pass_at(k: int, count: int, right: int) -> float:
    """Chance that one of k of these answers, drawn without putting back, is right (Chen et al. 2021, eq. 1)."""
    return 1.0 - math.comb(count - right, k) / math.comb(count, k)


def bootstrap(values: Sequence[float], seed: int = 1) -> tuple[float, float]:
    """The 95 % interval of the mean of one value a problem, by drawing problems again."""
    random, held = np.random.default_rng(seed), np.asarray(values)
    rows = max(1, DRAWN_AT_ONCE // len(held))
    means = [
        random.choice(held, (min(rows, BOOTSTRAP_DRAWS - done), len(held))).mean(axis=1)
        for done in range(0, BOOTSTRAP_DRAWS, rows)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def mean_interval(shares: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of one share a problem.

    Where all are 0 or all are 1, drawing them again says nothing: Wilson's for so many problems.
    """
    if len(set(shares)) == 1 and shares[0] in (0.0, 1.0):
        return wilson(int(shares[0]) * len(shares), len(shares))
    return bootstrap(shares)


@dataclass(frozen=True)
class Paired:
    """Two settings on the same problems."""

    difference: float  # of accuracies
    interval: tuple[float, float]  # 95 %, by drawing problems again
    better: int  # problems
    worse: int
    p: float  # of the two-sided exact sign test over the problems that differ (with one answer each, McNemar's)


def compare(gaps: Sequence[float]) -> Paired:
    """Two settings on the same questions, from how much more the first has right of each, between -1 and 1."""
    better, worse = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
    return Paired(sum(gaps) / len(gaps), bootstrap(gaps), better, worse, sign_test(better, worse))


def sign_test(better: int, worse: int) -> float:
    """Two-sided exact p of so many signs each way, if both ways are as likely."""
    count, fewer = better + worse, min(better, worse)
    return min(1.0, 2 * sum(math.comb(count, k) for k in range(fewer + 1)) / 2**count)
