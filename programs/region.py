"""A region of a picture as a model names it, and the same one as it can be shown up close."""

from __future__ import annotations

from PIL import Image

from sgl_proxythinker.programs.generation import Result

SMALLEST_PIXELS = 28  # of a side: one image token of Qwen2.5-VL, and less than that shows nothing
LONGEST_RATIO = 20  # of the longer side to the shorter one; Qwen2.5-VL's image processor refuses 200
ENLARGED_PIXELS = 672  # of the longer side: 24 x 24 image tokens at the most
NUMBER = "(0|[1-9][0-9]{0,4})"  # as JSON has it: no leading zeros


class Region(Result):
    """Of one of several pictures, in its pixels; x to the right, y down."""

    picture: int  # counted from 1
    bbox_2d: tuple[int, int, int, int]  # left, top, right, bottom; the name is the one Qwen2.5-VL was trained on


def region_regex(pictures: int) -> str:
    """The JSON of a `Region`, in one spelling: a grammar for any JSON would leave room for endless white space."""
    numbers = "|".join(str(number) for number in range(1, pictures + 1))
    box = ", ".join([NUMBER] * 4)
    return rf'\{{"picture": ({numbers}), "bbox_2d": \[{box}\]\}}'


def shown_box(named: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """What can be shown of a box: corners in order, inside the picture, neither tiny nor a mere line.

    Args:
        named: left, top, right, bottom as a model named them: any whole numbers.
        size: width and height of the picture, in pixels.
    """
    left, right = _inside(named[0], named[2], size[0])
    top, bottom = _inside(named[1], named[3], size[1])
    least = max(SMALLEST_PIXELS, max(right - left, bottom - top) // LONGEST_RATIO)
    left, right = _grown(left, right, size[0], least)
    top, bottom = _grown(top, bottom, size[1], least)
    return left, top, right, bottom


def _inside(one: int, other: int, length: int) -> tuple[int, int]:
    low, high = (min(max(end, 0), length) for end in sorted((one, other)))
    return low, high


def _grown(low: int, high: int, length: int, least: int) -> tuple[int, int]:
    """Around its middle, and pushed inside where it would stick out; a smaller picture is shown whole."""
    if high - low >= least:
        return low, high
    side = min(least, length)
    low = min(max((low + high - side) // 2, 0), length - side)
    return low, low + side


def enlarge(picture: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The pixels in a box, so large that its longer side has `ENLARGED_PIXELS`; larger ones stay as they are."""
    part = picture.crop(box)
    scale = ENLARGED_PIXELS / max(part.size)
    if scale <= 1:
        return part
    return part.resize([max(1, round(side * scale)) for side in part.size], Image.Resampling.LANCZOS)
