"""From answers to numbers with intervals. An answer is a row: problem, epoch, kind, level, right, tokens, ..."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from sgl_proxythinker.evaluation.statistics import Paired, bootstrap, compare, pass_at, wilson

Row = dict[str, Any]

MANNERS = ("thinks", "verifies", "backtracks")


def paired(one: str, other: str, answers: int = 1) -> Paired:
    """Compare `right_of` of two lines, each of so many answers to a problem.

    Raises:
        ValueError: they are of other numbers of problems.
    """
    return compare([(int(a, 36) - int(b, 36)) / answers for a, b in zip(one, other, strict=True)])


def share_right(rows: list[Row]) -> dict[str, Any]:
    """Accuracy with its interval: Wilson's for one answer a problem; answers to one problem are not independent."""
    problems = _by(rows, "problem")
    accuracy = _mean(row["right"] for row in rows)
    if len(problems) == len(rows):
        interval = wilson(sum(row["right"] for row in rows), len(rows))
    else:
        interval = bootstrap([_mean(row["right"] for row in group) for group in problems.values()])
    return {"n": len(problems), "accuracy": round(accuracy, 4), "interval": _rounded(interval)}


def summarize(rows: list[Row], ks: Iterable[int] = ()) -> dict[str, Any]:
    """Everything that a setting's line says of its answers."""
    summary = {
        **share_right(rows),
        "answers": len(rows),
        "kinds": {kind: share_right(group) for kind, group in _by(rows, "kind").items()},
        "levels": {str(level): share_right(group) for level, group in _by(rows, "level").items()},
        **{manner: round(_mean(row[manner] for row in rows), 4) for manner in MANNERS},
        "cut_off": round(_mean(row["cut_off"] for row in rows), 4),
        "tokens": round(_mean(row["tokens"] for row in rows), 2),
    }
    if all("traced" in row for row in rows):
        tokens = sum(row["traced"] for row in rows)
        summary["touched"] = round(sum(row["touched"] for row in rows) / tokens, 4)
        summary["strength"] = round(sum(row["strengths"] for row in rows) / tokens, 4)
    problems = _by(rows, "problem").values()
    # One character for each problem: how many of its answers are right, as a digit in base 36.
    summary["right_of"] = "".join(np.base_repr(sum(row["right"] for row in group), 36) for group in problems)
    answers = min(map(len, problems))
    for k in (k for k in ks if k <= answers):
        values = [pass_at(k, len(group), sum(row["right"] for row in group)) for group in problems]
        record = {"value": round(_mean(values), 4), "interval": _rounded(bootstrap(values))}
        summary.setdefault("pass_at", {})[str(k)] = record
    return summary


def _by(rows: list[Row], field: str) -> dict[Any, list[Row]]:
    groups = defaultdict(list)
    for row in rows:
        groups[row[field]].append(row)
    return dict(sorted(groups.items()))


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(end, 4) for end in interval]
