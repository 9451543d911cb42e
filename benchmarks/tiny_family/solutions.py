"""What an answer looks like in the corpus: a direct one, or a slow one that goes step by step and may check itself.

A slow answer is `<think>` lines, one for each row or step, with what is seen there and the running result,
`</think><answer>...</answer>`. Some have a planted slip: a line that misreads the picture. It is taken back at once
("wait, ..."), or found by the check at the end, which reads the rows again; the lines after it are then done again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.tiny_family.problems import Problem, _odd_one, _step
from benchmarks.tiny_family.scene import ARROWS, LETTERS, name

SLOW_SHARE = 0.15
CHECK_SHARE = 0.35  # of slow answers; half of these find a slip
SLIP_SHARE = 0.15  # of slow answers: one slip, taken back at once


def solution(problem: Problem, rng: random.Random) -> str:
    """The answer that the corpus gives, without the end of turn."""
    if not problem.reading or rng.random() >= SLOW_SHARE:
        return problem.answer
    return slow_solution(problem, rng)


def slow_solution(problem: Problem, rng: random.Random) -> str:
    how, reading = _HOW[problem.kind], list(problem.reading)
    style = rng.random()
    check, slip = style < CHECK_SHARE, style < CHECK_SHARE / 2 or style > 1 - SLIP_SHARE
    slip_at, wrong = _slip(problem, reading, rng) if slip else (None, None)

    lines, state = [], how.start(problem)
    for index, seen in enumerate(reading):
        if index == slip_at:
            lines.append(how.line(index, wrong, state)[0])
            if check:  # nothing is noticed yet
                state = how.line(index, wrong, state)[1]
                continue
            lines.append("wait,")
        line, state = how.line(index, seen, state)
        lines.append(line)
    if check:
        lines.append("check: " + " ".join(how.brief(seen) for seen in reading))
        if slip_at is None:
            lines[-1] += " ok"
        else:
            lines.append("wait,")
            state = how.start(problem)
            for index, seen in enumerate(reading):
                line, state = how.line(index, seen, state)
                # What comes after a slip is done again, but totals of rows don't hang together.
                if index == slip_at or (index > slip_at and problem.kind != "odd"):
                    lines.append(line)
    lines.append(how.end(problem, state))
    return f"<think>\n{chr(10).join(lines)}\n</think><answer>{problem.answer}</answer>"


@dataclass(frozen=True)
class _How:
    """How a kind is gone through. `line` gives the text of one row or step and the result so far."""

    start: Callable[[Problem], object]
    line: Callable[[int, object, object], tuple[str, object]]
    brief: Callable[[object], str]  # of one row, for the check
    end: Callable[[Problem, object], str]
    misread: Callable[[object, int, random.Random], object]


def _count_line(index, seen, total):
    total += len(seen)
    return f"row {index + 1}: {_columns(seen)}={total}", total


def _columns(seen) -> str:
    return " ".join(LETTERS[column] for column in seen) or "none"


def _misread_columns(seen, size, rng):
    return tuple(sorted(set(seen) ^ {rng.randrange(size)}))


def _add_line(index, seen, total):
    parts = []
    for column, digit in seen:
        total += digit
        parts.append(f"{LETTERS[column]}{digit}={total}")
    return f"row {index + 1}: " + (" ".join(parts) or f"none={total}"), total


def _misread_digits(seen, size, rng):
    if not seen:
        return ((rng.randrange(size), rng.randrange(10)),)
    at = rng.randrange(len(seen))
    column, digit = seen[at]
    return (*seen[:at], (column, (digit + rng.randint(1, 9)) % 10), *seen[at + 1 :])


def _compare_line(index, seen, totals):
    more, fewer = totals[0] + len(seen[0]), totals[1] + len(seen[1])
    return f"row {index + 1}: {_columns(seen[0])}={more}, {_columns(seen[1])}={fewer}", (more, fewer)


def _misread_pair(seen, size, rng):
    which = rng.randrange(2)
    return tuple(_misread_columns(one, size, rng) if index == which else one for index, one in enumerate(seen))


def _path_line(index, seen, place):
    return f"{name(*place)} {seen}", _step(place, seen)


def _odd_line(index, seen, totals):
    total, parts = seen[0], [str(seen[0])]
    for digit in seen[1:]:
        total += digit
        parts.append(f"+{digit}={total}")
    return f"row {index + 1}: " + "".join(parts), (*totals, total)


def _misread_row(seen, size, rng):
    at = rng.randrange(len(seen))
    return (*seen[:at], (seen[at] + rng.randint(1, 9)) % 10, *seen[at + 1 :])


_HOW = {
    "count": _How(lambda p: 0, _count_line, lambda seen: str(len(seen)), lambda p, total: f"so {total}", _misread_columns),
    "add": _How(
        lambda p: 0, _add_line, lambda seen: str(sum(d for _, d in seen)), lambda p, total: f"so {total}", _misread_digits
    ),
    "compare": _How(
        lambda p: (0, 0), _compare_line, lambda seen: f"{len(seen[0])},{len(seen[1])}",
        lambda p, totals: f"so {totals[0]}-{totals[1]}={totals[0] - totals[1]}", _misread_pair,
    ),
    "path": _How(
        lambda p: p.subject[:2], _path_line, str, lambda p, place: f"{name(*place)} has {p.answer}",
        lambda seen, size, rng: rng.choice([arrow for arrow in ARROWS if arrow != seen]),
    ),
    "odd": _How(
        lambda p: (), _odd_line, lambda seen: str(sum(seen)), lambda p, totals: f"so {_odd_one(list(totals))}", _misread_row
    ),
}  # fmt: skip


def _slip(problem: Problem, reading: list, rng: random.Random) -> tuple[int, object]:
    """Where to slip and what is seen there instead. A slip on a path must not lead out of the grid."""
    how, size = _HOW[problem.kind], problem.scene.size
    while True:
        at = rng.randrange(len(reading))
        wrong = how.misread(reading[at], size, rng)
        if problem.kind != "path":
            return at, wrong
        place = problem.subject[:2]
        for arrow in (*reading[:at], wrong, *reading[at + 1 :]):
            place = _step(place, arrow)
            if not (0 <= place[0] < size and 0 <= place[1] < size):
                break
        else:
            return at, wrong
