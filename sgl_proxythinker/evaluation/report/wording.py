"""How a report writes numbers: percent, points, intervals and p, the same in HTML and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from sgl_proxythinker.evaluation.benchmarks import BENCHMARKS


def title(benchmark: str) -> str:
    """As papers write it: "MathVista" of mathvista; a name that is not known stays as it is."""
    known = BENCHMARKS.get(benchmark)
    return known.title if known else benchmark


def percent(share: float) -> str:
    """A share in percent: "62.5" of 0.625."""
    return f"{100 * share:.1f}"


def percent_interval(low: float, high: float) -> str:
    return f"{percent(low)}–{percent(high)}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, always with its sign: "+4.0"."""
    return signed(f"{100 * difference:+.1f}")


def points_interval(low: float, high: float) -> str:
    return f"{points(low)} to {points(high)}"


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def signed(number: str) -> str:
    """A number with a sign before it: a minus that is as wide as a plus, and neither before zero."""
    return "±0.0" if number in ("+0.0", "-0.0") else number.replace("-", "−")


def counted(problems: Sequence[tuple[str, int]]) -> str:
    """Counts in one line: "3 failed, 1 cut off"."""
    return ", ".join(f"{count:,} {name}" for name, count in problems)


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
