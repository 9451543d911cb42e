"""What an answer looks like in the corpus: a direct one, or a slow one that goes step by step and may check itself.

A slow answer is `<think>` lines, one for each row or step, with what is seen there and the running result,
`</think><answer>...</answer>`. Some have a planted slip: a line that misreads the picture. It is taken back at once
("wait, ..."), or found by the check at the end, which reads the rows again; the lines after it are then done again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from sgl_proxythinker.tiny_family.problems import Problem, Seen, inside, odd_one, step, usual_one
from sgl_proxythinker.tiny_family.scene import ARROWS, COLOURS, SHAPES, name

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
            line, slipped = how.line(index, wrong, state)
            lines.append(line)
            if check:  # nothing is noticed yet
                state = slipped
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
    misread: Callable[[Problem, object, random.Random], object]


def _count_line(index: int, row: tuple[Seen, ...], totals: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Counts each subject apart."""
    totals, words = list(totals), []
    for seen in row:
        words.append(f" {seen.word}")
        if seen.hit is not None:
            totals[seen.hit] += 1
            words[-1] += f"={totals[seen.hit]}"
    return f"row {index + 1}:" + "".join(words), tuple(totals)


def _add_line(index: int, row: tuple[Seen, ...], total: int) -> tuple[str, int]:
    words = []
    for seen in row:
        words.append(f" {seen.word}")
        if seen.hit == 0:
            total += seen.digit
            words[-1] += f"{seen.digit}={total}"
    return f"row {index + 1}:" + "".join(words), total


def _hits(row: tuple[Seen, ...], subject: int) -> int:
    return sum(seen.hit == subject for seen in row)


def _misread_word(problem: Problem, row: tuple[Seen, ...], rng: random.Random) -> tuple[Seen, ...]:
    """One cell takes another's colour or shape."""
    at = rng.randrange(len(row))
    part = rng.choice(row[at].word.split())
    others = [other for other in (COLOURS if part in COLOURS else SHAPES) if other != part]
    word = row[at].word.replace(part, rng.choice(others))
    return _with(row, at, Seen(word, _subject_of(problem, word), row[at].digit))


def _misread_word_or_digit(problem: Problem, row: tuple[Seen, ...], rng: random.Random) -> tuple[Seen, ...]:
    if not _hits(row, 0):
        return _misread_word(problem, row, rng)
    at = rng.choice([at for at, seen in enumerate(row) if seen.hit == 0])
    return _with(row, at, row[at]._replace(digit=_another_digit(row[at].digit, rng)))


def _subject_of(problem: Problem, word: str) -> int | None:
    words = word.split()
    for index, subject in enumerate(problem.subject):
        if all(part in words for part in subject if part):
            return index
    return None


def _with(row: tuple, at: int, one: object) -> tuple:
    return (*row[:at], one, *row[at + 1 :])


def _another_digit(digit: int, rng: random.Random) -> int:
    return (digit + rng.randint(1, 9)) % 10


def _path_line(index: int, arrow: str, place: tuple[int, int]) -> tuple[str, tuple[int, int]]:
    return f"{name(*place)} {arrow}", step(place, arrow)


def _misread_arrow(problem: Problem, arrow: str, rng: random.Random) -> str:
    return rng.choice([other for other in ARROWS if other != arrow])


def _odd_line(index: int, row: tuple[int, ...], totals: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    total, parts = row[0], [str(row[0])]
    for digit in row[1:]:
        total += digit
        parts.append(f"+{digit}={total}")
    return f"row {index + 1}: " + "".join(parts), (*totals, total)


def _misread_digit(problem: Problem, row: tuple[int, ...], rng: random.Random) -> tuple[int, ...]:
    at = rng.randrange(len(row))
    return _with(row, at, _another_digit(row[at], rng))


_HOW = {
    "count": _How(
        lambda p: (0,), _count_line, lambda row: str(_hits(row, 0)), lambda p, totals: f"so {totals[0]}", _misread_word
    ),
    "add": _How(
        lambda p: 0, _add_line, lambda row: str(sum(seen.digit for seen in row if seen.hit == 0)),
        lambda p, total: f"so {total}", _misread_word_or_digit,
    ),
    "compare": _How(
        lambda p: (0, 0), _count_line, lambda row: f"{_hits(row, 0)},{_hits(row, 1)}",
        lambda p, totals: f"so {totals[0]}-{totals[1]}={totals[0] - totals[1]}", _misread_word,
    ),
    "path": _How(
        lambda p: p.subject[:2], _path_line, str, lambda p, place: f"{name(*place)} has {p.answer}", _misread_arrow
    ),
    "odd": _How(
        lambda p: (), _odd_line, lambda row: str(sum(row)),
        lambda p, totals: f"totals {' '.join(map(str, totals))}, usual {usual_one(totals)}, so {odd_one(totals)}",
        _misread_digit,
    ),
}  # fmt: skip


def _slip(problem: Problem, reading: list, rng: random.Random) -> tuple[int, object]:
    """Where to slip and what is seen there instead. A slip on a path must not lead out of the grid."""
    while True:
        at = rng.randrange(len(reading))
        wrong = _HOW[problem.kind].misread(problem, reading[at], rng)
        if problem.kind != "path":
            return at, wrong
        place, stays = problem.subject[:2], True
        for arrow in _with(tuple(reading), at, wrong):
            place = step(place, arrow)
            stays = stays and inside(place, problem.scene.size)
        if stays:
            return at, wrong
