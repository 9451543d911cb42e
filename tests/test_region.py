"""Regions that models name: every one can be shown, and what is shown are the right pixels."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest
from PIL import Image

from sgl_proxythinker.programs.pictures import random_picture
from sgl_proxythinker.programs.region import (
    ENLARGED_PIXELS,
    LONGEST_RATIO,
    SMALLEST_PIXELS,
    Region,
    enlarge,
    region_regex,
    shown_box,
)


@pytest.mark.parametrize(
    "named, size, shown",
    [
        ((10, 20, 60, 90), (100, 100), (10, 20, 60, 90)),
        ((60, 90, 10, 20), (100, 100), (10, 20, 60, 90)),  # corners swapped
        ((10, 20, 9999, 9999), (100, 80), (10, 20, 100, 80)),  # past the edge
        ((50, 50, 50, 50), (100, 100), (36, 36, 64, 64)),  # a point: grown around it
        ((0, 0, 0, 0), (100, 100), (0, 0, 28, 28)),
        ((9999, 9999, 9999, 9999), (100, 100), (72, 72, 100, 100)),  # all outside: the nearest corner
        ((5, 5, 6, 6), (20, 10), (0, 0, 20, 10)),  # a picture that is smaller than what is shown at least
        ((40, 0, 41, 4000), (400, 4000), (0, 0, 200, 4000)),  # a line: as wide as the processor can take
    ],
)
def test_every_box_becomes_one_that_can_be_shown(named, size, shown):
    assert shown_box(named, size) == shown


def test_any_box_in_any_picture_can_be_shown():
    rng = random.Random(0)
    for _ in range(2000):
        size = rng.randint(1, 3000), rng.randint(1, 3000)
        named = tuple(rng.choice((rng.randint(0, 3000), rng.randint(0, 99999))) for _ in range(4))
        left, top, right, bottom = shown_box(named, size)
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
        for side, whole in ((right - left, size[0]), (bottom - top, size[1])):
            assert side >= min(SMALLEST_PIXELS, whole)
            longest = max(right - left, bottom - top)
            assert side == whole or longest <= (LONGEST_RATIO + 1) * side
        inside = (min(max(named[axis], 0), whole) for axis, whole in ((0, size[0]), (1, size[1])))
        x, y = inside
        assert left <= x <= right and top <= y <= bottom, "what was named is not in what is shown"


def test_a_crop_holds_the_pixels_of_its_box():
    """Large enough to stay as they are: pixel for pixel."""
    whole = random_picture(1, 1500, 1000)
    crop = enlarge(whole, (100, 200, 1000, 900))
    assert np.array_equal(np.asarray(crop), np.asarray(whole)[200:900, 100:1000])


def test_a_small_crop_is_enlarged_and_keeps_its_shape():
    quarters = Image.new("RGB", (200, 200), "white")
    for box, colour in (((0, 0), "red"), ((100, 0), "lime"), ((0, 100), "blue")):
        quarters.paste(colour, (*box, box[0] + 100, box[1] + 100))
    crop = enlarge(quarters, (110, 10, 190, 50))
    assert crop.size == (ENLARGED_PIXELS, ENLARGED_PIXELS // 2)
    assert crop.getcolors() == [(ENLARGED_PIXELS * ENLARGED_PIXELS // 2, (0, 255, 0))]


def test_the_regex_is_the_json_of_a_region():
    regex = re.compile(region_regex(12))
    for number, box in ((1, (0, 0, 0, 0)), (12, (10, 99999, 5, 300))):
        text = json.dumps({"picture": number, "bbox_2d": box})
        assert regex.fullmatch(text)
        assert Region.model_validate(json.loads(text)) == Region(picture=number, bbox_2d=box)
    for number, corner in ((0, 1), (13, 1), (1, -1), (1, 100000)):
        assert not regex.fullmatch(json.dumps({"picture": number, "bbox_2d": [corner, 2, 3, 4]}))
    assert not regex.fullmatch('{"picture": 1, "bbox_2d": [007, 2, 3, 4]}'), "that is no JSON"
