"""Questions about scenes with exact answers, and how they are answered: directly, or slowly with steps and checks.

    python -m sgl_proxythinker.tiny_family.problems --split test --count 1000 --out DIR    # pictures, problems.jsonl

Every problem follows from (split, index). Splits share neither a wording nor a picture: a scene belongs to the split
that its fingerprint says (`split_of`), and a generator that hits another split's scene draws again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from sgl_proxythinker.tiny_family.scene import ARROWS, COLOURS, SHAPES, Cell, Scene, draw, name
from sgl_proxythinker.tiny_family.wordings import TEST, TRAIN, VALIDATION, word

KINDS = ("count", "add", "compare", "path", "odd")  # reasoning: what is scored
READING = ("read_cell", "read_row")  # perception alone: in the corpus only
LEVELS = (1, 2, 3)
WORN_SHARE = 2 / 3  # of pictures
HELD_OUT_SHARE = 16  # one scene in 16 is the test's, one the validation's


class Seen(NamedTuple):
    """A cell as somebody sees it who looks for something."""

    word: str
    hit: int | None  # which of the question's subjects it is
    digit: int


@dataclass(frozen=True)
class Problem:
    kind: str
    level: int
    scene: Scene
    look: int
    worn: bool  # its digits are worn
    question: str
    answer: str
    reading: tuple  # what there is to see, row by row or step by step: see `_READERS`
    subject: tuple  # what the question asks about

    def picture(self) -> Image.Image:
        return draw(self.scene, self.look, self.worn)


def problem(split: str, index: int) -> Problem:
    """The problem number `index` of a split, over all kinds and levels in turn. Held-out splits hold no reading."""
    kinds = KINDS if split != TRAIN else KINDS + READING
    rng = random.Random(f"{split} {index}")
    kind = kinds[index % len(kinds)] if split != TRAIN else rng.choice(kinds)
    level = LEVELS[index // len(kinds) % len(LEVELS)] if split != TRAIN else rng.choice(LEVELS)
    return make_problem(split, kind, level, rng)


def split_of(scene: Scene) -> str:
    return {0: TEST, 1: VALIDATION}.get(scene.fingerprint % HELD_OUT_SHARE, TRAIN)


def make_problem(split: str, kind: str, level: int, rng: random.Random) -> Problem:
    while True:
        scene, subject, words = _MAKERS[kind](level, rng)
        if split_of(scene) == split:
            break
    reading, answer = _READERS[kind](scene, subject)
    question = word(kind, split, rng, words)
    look, worn = rng.getrandbits(32), rng.random() < WORN_SHARE
    return Problem(kind, level, scene, look, worn, question, answer, reading, subject)


# Makers: (level, rng) -> scene, subject, words of the question. Level 1 has 3 x 3 cells, 2 and 3 have 4 x 4, and 3 has
# more to keep track of. Answers are spread evenly where that is possible, so that a guess without the picture is poor.


def _cells(rng: random.Random, count: int, shapes: tuple[str, ...] = SHAPES) -> list[Cell]:
    colours = tuple(COLOURS)
    return [Cell(rng.choice(colours), rng.choice(shapes), rng.randrange(10)) for _ in range(count)]


def _side(level: int) -> int:
    return 3 if level == 1 else 4


def _subjects(rng: random.Random, count: int) -> list[tuple[str | None, str | None]]:
    """`count` different (colour, shape), of one sort: None is any."""
    if rng.random() < 0.5:
        return [(colour, None) for colour in rng.sample(tuple(COLOURS), count)]
    return [(None, shape) for shape in rng.sample(SHAPES, count)]


def _words(subject: tuple[str | None, str | None]) -> str:
    colour, shape = subject
    return f"{colour} shapes" if shape is None else f"{shape}s" if colour is None else f"{colour} {shape}s"


def _matches(cell: Cell, subject: tuple[str | None, str | None]) -> bool:
    colour, shape = subject
    return colour in (None, cell.colour) and shape in (None, cell.shape)


def _scene_with(rng: random.Random, size: int, wanted: dict[tuple, int]) -> Scene:
    """A scene in which each subject matches as many cells as wanted, and no cell matches two."""
    subjects: list[tuple | None] = [subject for subject, count in wanted.items() for _ in range(count)]
    subjects += [None] * (size * size - len(subjects))
    rng.shuffle(subjects)
    cells = []
    for subject in subjects:
        (cell,) = _cells(rng, 1)
        if subject is None:
            while any(_matches(cell, other) for other in wanted):
                (cell,) = _cells(rng, 1)
        else:
            colour, shape = subject
            cell = Cell(colour or cell.colour, shape or cell.shape, cell.digit)
        cells.append(cell)
    return Scene(size, tuple(cells))


def _make_count(level: int, rng: random.Random) -> tuple[Scene, tuple, dict]:
    subject = _subjects(rng, 1)[0]
    if level == 3 and rng.random() < 0.5:
        subject = (rng.choice(tuple(COLOURS)), rng.choice(SHAPES))
    count = rng.randint(*{1: (0, 6), 2: (1, 8), 3: (3, 10)}[level])
    return _scene_with(rng, _side(level), {subject: count}), (subject,), {"what": _words(subject)}


def _make_add(level: int, rng: random.Random) -> tuple[Scene, tuple, dict]:
    subject = _subjects(rng, 1)[0]
    count = rng.randint(*{1: (2, 3), 2: (2, 4), 3: (4, 6)}[level])
    return _scene_with(rng, _side(level), {subject: count}), (subject,), {"what": _words(subject)}


def _make_compare(level: int, rng: random.Random) -> tuple[Scene, tuple, dict]:
    more, fewer = _subjects(rng, 2)
    most, difference = {1: (6, 5), 2: (8, 6), 3: (10, 8)}[level]
    difference = rng.randint(1, difference)
    few = rng.randint(0 if level < 3 else 1, min(most - difference, _side(level) ** 2 - most))
    scene = _scene_with(rng, _side(level), {more: few + difference, fewer: few})
    return scene, (more, fewer), {"more": _words(more), "fewer": _words(fewer)}


def _make_path(level: int, rng: random.Random) -> tuple[Scene, tuple, dict]:
    size, steps = _side(level), rng.randint(*{1: (2, 3), 2: (3, 4), 3: (5, 6)}[level])
    while len(places := _wander(rng, size, steps)) <= steps:
        pass
    cells = _cells(rng, size * size, tuple(ARROWS))
    for place, following in itertools.pairwise(places):
        arrow = next(arrow for arrow in ARROWS if step(place, arrow) == following)
        index = place[1] * size + place[0]
        cells[index] = Cell(cells[index].colour, arrow, cells[index].digit)
    column, row = places[0]
    return Scene(size, tuple(cells)), (column, row, steps), {"start": name(column, row), "steps": steps}


def _wander(rng: random.Random, size: int, steps: int) -> list[tuple[int, int]]:
    """Places of a random walk from anywhere that meets none twice; it ends early where there is no way on."""
    places = [(rng.randrange(size), rng.randrange(size))]
    for _ in range(steps):
        nexts = [step(places[-1], arrow) for arrow in ARROWS]
        nexts = [place for place in nexts if inside(place, size) and place not in places]
        if not nexts:
            break
        places.append(rng.choice(nexts))
    return places


def step(place: tuple[int, int], arrow: str) -> tuple[int, int]:
    return place[0] + ARROWS[arrow][0], place[1] + ARROWS[arrow][1]


def _make_odd(level: int, rng: random.Random) -> tuple[Scene, tuple, dict]:
    size = _side(level)
    low, high = {1: (4, 14), 2: (6, 14), 3: (14, 26)}[level]
    usual, odd = rng.sample(range(low, high + 1), 2)
    totals = [usual] * size
    totals[rng.randrange(size)] = odd
    cells = _cells(rng, size * size)
    digits = itertools.chain.from_iterable(_digits_with_total(rng, size, total) for total in totals)
    return Scene(size, tuple(Cell(c.colour, c.shape, d) for c, d in zip(cells, digits, strict=True))), (), {}


def _digits_with_total(rng: random.Random, count: int, total: int) -> list[int]:
    while True:
        digits = [rng.randrange(10) for _ in range(count - 1)]
        if 0 <= total - sum(digits) <= 9:
            digits.append(total - sum(digits))
            rng.shuffle(digits)
            return digits


def _make_reading(ask_about: Callable) -> Callable:
    def make(level: int, rng: random.Random) -> tuple[Scene, tuple, dict]:
        size = _side(level)
        scene = Scene(size, tuple(_cells(rng, size * size, tuple(ARROWS) if rng.random() < 0.3 else SHAPES)))
        return scene, *ask_about(scene, rng)

    return make


def ask(scene: Scene, rng: random.Random) -> Problem:
    """One more training question about a scene that was made for another."""
    level = 1 if scene.size == 3 else 2
    while True:
        kind = rng.choices(tuple(_ASKERS), tuple(weight for _, weight in _ASKERS.values()))[0]
        if asked := _ASKERS[kind][0](scene, rng):
            subject, words = asked
            reading, answer = _READERS[kind](scene, subject)
            question = word(kind, TRAIN, rng, words)
            return Problem(kind, level, scene, 0, False, question, answer, reading, subject)


# Askers: (scene, rng) -> subject, words of the question; None if the scene does not lend itself to it.


def _ask_subject(scene: Scene, rng: random.Random) -> tuple[tuple, dict] | None:
    subject = _subjects(rng, 1)[0]
    return None if _is_arrow_scene(scene) and subject[1] else ((subject,), {"what": _words(subject)})


def _ask_compare(scene: Scene, rng: random.Random) -> tuple[tuple, dict] | None:
    more, fewer = _subjects(rng, 2)
    if int(_read_compare(scene, (more, fewer))[1]) < 1:
        return None
    return (more, fewer), {"more": _words(more), "fewer": _words(fewer)}


def _ask_path(scene: Scene, rng: random.Random) -> tuple[tuple, dict] | None:
    if not _is_arrow_scene(scene):
        return None
    start = place = (rng.randrange(scene.size), rng.randrange(scene.size))
    places = [place]
    while (place := step(place, scene.at(*place).shape)) not in places and inside(place, scene.size):
        places.append(place)
    if len(places) < 3:
        return None
    steps = rng.randint(2, min(6, len(places) - 1))
    return (*start, steps), {"start": name(*start), "steps": steps}


def _ask_odd(scene: Scene, rng: random.Random) -> tuple[tuple, dict] | None:
    totals = [sum(cell.digit for cell in scene.row(row)) for row in range(scene.size)]
    return ((), {}) if len(set(totals)) == 2 and min(map(totals.count, totals)) == 1 else None


def _ask_cell(scene: Scene, rng: random.Random) -> tuple[tuple, dict]:
    place = (rng.randrange(scene.size), rng.randrange(scene.size))
    return place, {"start": name(*place)}


def _ask_row(scene: Scene, rng: random.Random) -> tuple[tuple, dict]:
    row = rng.randrange(scene.size)
    return (row,), {"steps": row + 1}


def _is_arrow_scene(scene: Scene) -> bool:
    return scene.cells[0].shape in ARROWS


def inside(place: tuple[int, int], size: int) -> bool:
    return 0 <= place[0] < size and 0 <= place[1] < size


# Readers: (scene, subject) -> what there is to see, one entry a line of the slow answer; and the answer.


def _see_rows(scene: Scene, subjects: tuple) -> tuple[tuple[Seen, ...], ...]:
    """Each cell of each row, told by what the question asks about: colour, shape or both."""
    colour, shape = (any(subject[part] for subject in subjects) for part in (0, 1))

    def see(cell: Cell) -> Seen:
        word = " ".join(part for part, asked in ((cell.colour, colour), (cell.shape, shape)) if asked)
        hit = next((index for index, subject in enumerate(subjects) if _matches(cell, subject)), None)
        return Seen(word, hit, cell.digit)

    return tuple(tuple(map(see, scene.row(row))) for row in range(scene.size))


def _hits(rows: tuple[tuple[Seen, ...], ...], subject: int) -> int:
    return sum(seen.hit == subject for row in rows for seen in row)


def _read_count(scene: Scene, subjects: tuple) -> tuple[tuple, str]:
    rows = _see_rows(scene, subjects)
    return rows, str(_hits(rows, 0))


def _read_add(scene: Scene, subjects: tuple) -> tuple[tuple, str]:
    rows = _see_rows(scene, subjects)
    return rows, str(sum(seen.digit for row in rows for seen in row if seen.hit == 0))


def _read_compare(scene: Scene, subjects: tuple) -> tuple[tuple, str]:
    rows = _see_rows(scene, subjects)
    return rows, str(_hits(rows, 0) - _hits(rows, 1))


def _read_path(scene: Scene, subject: tuple) -> tuple[tuple, str]:
    place, arrows = subject[:2], []
    for _ in range(subject[2]):
        arrows.append(scene.at(*place).shape)
        place = step(place, arrows[-1])
    return tuple(arrows), str(scene.at(*place).digit)


def _read_odd(scene: Scene, subject: tuple) -> tuple[tuple, str]:
    rows = tuple(tuple(cell.digit for cell in scene.row(row)) for row in range(scene.size))
    return rows, str(odd_one([sum(row) for row in rows]))


def usual_one(totals: Sequence[int]) -> int:
    """The total that comes most often."""
    return max(totals, key=totals.count)


def odd_one(totals: Sequence[int]) -> int:
    """The total that comes once; the largest if none or all do, which only a misread grid has."""
    once = [total for total in totals if totals.count(total) == 1]
    return once[0] if len(once) == 1 else max(totals)


def _read_read_cell(scene: Scene, subject: tuple) -> tuple[tuple, str]:
    return (), _say(scene.at(*subject))


def _read_read_row(scene: Scene, subject: tuple) -> tuple[tuple, str]:
    return (), ", ".join(map(_say, scene.row(subject[0])))


def _say(cell: Cell) -> str:
    return f"{cell.colour} {cell.shape} {cell.digit}"


_MAKERS = {
    "count": _make_count, "add": _make_add, "compare": _make_compare, "path": _make_path, "odd": _make_odd,
    "read_cell": _make_reading(_ask_cell), "read_row": _make_reading(_ask_row),
}  # fmt: skip
_ASKERS = {  # and how often each is asked; most scenes lend themselves to some of them only
    "count": (_ask_subject, 15), "add": (_ask_subject, 15), "compare": (_ask_compare, 15), "path": (_ask_path, 15),
    "odd": (_ask_odd, 30), "read_cell": (_ask_cell, 15), "read_row": (_ask_row, 40),
}  # fmt: skip
_READERS = {
    "count": _read_count, "add": _read_add, "compare": _read_compare, "path": _read_path, "odd": _read_odd,
    "read_cell": _read_read_cell, "read_row": _read_read_row,
}  # fmt: skip


def problems(split: str, count: int, start: int = 0) -> Iterator[Problem]:
    return (problem(split, index) for index in range(start, start + count))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sgl_proxythinker.tiny_family.problems", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--split", choices=(TRAIN, VALIDATION, TEST), default=TEST)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures and problems.jsonl")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "problems.jsonl").open("w") as lines:
        for index, one in enumerate(problems(args.split, args.count)):
            one.picture().save(args.out / f"{index:04}.png")
            fields = {"kind": one.kind, "level": one.level, "question": one.question, "answer": one.answer}
            lines.write(json.dumps({"picture": f"{index:04}.png", **fields}) + "\n")


if __name__ == "__main__":
    main()
