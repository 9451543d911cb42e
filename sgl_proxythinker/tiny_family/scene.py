"""The pictures: a square grid of coloured shapes or arrows, each with a digit on it.

Columns have letters and rows numbers, so "B3" is the second cell of the third row. What a picture shows (`Scene`) is
kept apart from how it looks (`draw`): jitter of place, size, angle, tint, print and background come from a seed of its
own, so that the same scene never looks the same twice.
"""

from __future__ import annotations

import functools
import hashlib
import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

PIXELS = 168  # of a side: 6 x 6 image tokens of 28 pixels, which the cells do not line up with
MARGIN = 14  # left and top, for the letters and numbers
COLOURS = {
    "red": (205, 45, 45),
    "green": (45, 150, 70),
    "blue": (50, 90, 205),
    "orange": (235, 130, 25),
    "purple": (140, 60, 170),
}
SHAPES = ("circle", "square", "triangle", "diamond")
ARROWS = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}  # column and row that a step adds
LETTERS = "ABCD"


@dataclass(frozen=True)
class Cell:
    colour: str
    shape: str  # of SHAPES or of ARROWS
    digit: int


@dataclass(frozen=True)
class Scene:
    size: int  # cells of a side
    cells: tuple[Cell, ...]  # row by row

    def row(self, row: int) -> tuple[Cell, ...]:
        return self.cells[row * self.size : (row + 1) * self.size]

    def at(self, column: int, row: int) -> Cell:
        return self.cells[row * self.size + column]

    @property
    def fingerprint(self) -> int:
        """Of what is shown, not of how: 64 bits, the same on every machine."""
        text = f"{self.size}" + "".join(f"{cell.colour[0]}{cell.shape[:2]}{cell.digit}" for cell in self.cells)
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Print:
    """How digits are printed."""

    heights: tuple[int, int]  # of the font, in pixels
    turns: range  # degrees
    ink: int  # the darkest white


CLEAR, WORN = Print((18, 22), range(1), 240), Print((10, 16), range(-28, 29, 4), 175)


def name(column: int, row: int) -> str:
    return f"{LETTERS[column]}{row + 1}"


def middle(index: int, size: int) -> float:
    """Of a row or column, in pixels from the edge of the picture; cells are drawn a little off it."""
    return MARGIN + (index + 0.5) * (PIXELS - MARGIN) / size


def draw(scene: Scene, look: int, worn: bool) -> Image.Image:
    """PIXELS x PIXELS, RGB. `look` seeds everything that the scene does not fix; worn digits are harder to read."""
    jitter, digits = random.Random(look), WORN if worn else CLEAR
    paper = tuple(jitter.randint(215, 255) for _ in range(3))
    picture = Image.new("RGB", (PIXELS, PIXELS), paper)
    canvas = ImageDraw.Draw(picture)
    side = (PIXELS - MARGIN) / scene.size
    for index in range(scene.size):
        _write(picture, LETTERS[index], middle(index, scene.size), MARGIN / 2, 11, (90, 90, 90))
        _write(picture, str(index + 1), MARGIN / 2, middle(index, scene.size), 11, (90, 90, 90))
    for index, cell in enumerate(scene.cells):
        column, row = index % scene.size, index // scene.size
        x = middle(column, scene.size) + jitter.uniform(-0.07, 0.07) * side
        y = middle(row, scene.size) + jitter.uniform(-0.07, 0.07) * side
        radius = side * jitter.uniform(0.33, 0.41)
        tint = tuple(min(255, max(0, part + jitter.randint(-28, 28))) for part in COLOURS[cell.colour])
        _draw_shape(canvas, cell.shape, x, y, radius, jitter.uniform(-0.2, 0.2), tint)
        ink = (jitter.randint(digits.ink, 255),) * 3
        _write(picture, str(cell.digit), x, y, jitter.randint(*digits.heights), ink, jitter.choice(digits.turns))
    return picture


_OUTLINES = {  # corners on a circle of radius 1, angles in turns, clockwise from the right
    "square": [(1.1, 0.125), (1.1, 0.375), (1.1, 0.625), (1.1, 0.875)],
    "diamond": [(1.15, 0.0), (1.15, 0.25), (1.15, 0.5), (1.15, 0.75)],
    "triangle": [(1.25, 0.75), (1.25, 0.75 + 1 / 3), (1.25, 0.75 + 2 / 3)],
}
_ARROW = [(-1.1, -0.45), (0.0, -0.45), (0.0, -1.0), (1.15, 0.0), (0.0, 1.0), (0.0, 0.45), (-1.1, 0.45)]  # to the right
_TURNS = {"right": 0.0, "down": 0.25, "left": 0.5, "up": 0.75}


def _draw_shape(
    canvas: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, tilt: float, fill: tuple[int, ...]
) -> None:
    if shape == "circle":
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
        return
    if shape in _TURNS:
        turn = _TURNS[shape] * math.tau + tilt
        corners = [(math.hypot(u, v), math.atan2(v, u) + turn) for u, v in _ARROW]
    else:
        corners = [(length, angle * math.tau + tilt) for length, angle in _OUTLINES[shape]]
    canvas.polygon([(x + radius * r * math.cos(a), y + radius * r * math.sin(a)) for r, a in corners], fill=fill)


def _write(
    picture: Image.Image, character: str, x: float, y: float, height: int, ink: tuple[int, ...], turn: int = 0
) -> None:
    """One character with its middle at (x, y)."""
    glyph = _glyph(character, height, turn)
    picture.paste(ink, (round(x - glyph.width / 2), round(y - glyph.height / 2)), glyph)


@functools.cache
def _glyph(character: str, height: int, turn: int) -> Image.Image:
    """Its coverage, cut to its ink, in the font that Pillow carries."""
    sheet = Image.new("L", (4 * height, 4 * height))
    ImageDraw.Draw(sheet).text((height, height), character, fill=255, font=ImageFont.load_default(height))
    sheet = sheet.rotate(turn, Image.Resampling.BICUBIC)
    return sheet.crop(sheet.getbbox())
