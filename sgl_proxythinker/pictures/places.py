"""Places of pictures in a prompt of the Qwen-VL family: found, counted, and each brought to the form that SGLang reads.

A place is `<|vision_start|><|image_pad|><|vision_end|>`, in text or as three ids. A prompt that was expanded before it
came has as many `<|image_pad|>` as its picture has tokens; SGLang never answers such a request, so they become one
again, and SGLang expands it as its picture needs.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from sgl_proxythinker.architectures import QWEN_PLACE as PLACE
from sgl_proxythinker.errors import RequestError

_PART = "<|image_pad|>"
_VIDEO = "<|video_pad|>"
_ANY_LENGTH = re.compile(r"<\|vision_start\|>(?:<\|image_pad\|>)+<\|vision_end\|>")


class PlaceIds(NamedTuple):
    """Ids of the tokens that a place is made of, and that of a video."""

    start: int
    part: int
    end: int
    video: int


def places_in_text(text: str, pictures: int) -> str:
    """Check the places of a prompt against its pictures.

    Args:
        text: the prompt; may write about the tokens where it has no picture.
        pictures: how many came with it.

    Returns:
        the prompt with each place of one `<|image_pad|>`.

    Raises:
        RequestError: HTTP 400: another number of places than of pictures, or a part of a place beside a picture.
    """
    if _PART not in text and _VIDEO not in text:
        _agree(0, pictures)
        return text
    text, places = _ANY_LENGTH.subn(PLACE, text)
    _agree(places, pictures)
    if pictures:
        if _VIDEO in text:
            raise RequestError(_no_video())
        if text.count(_PART) != places:
            raise RequestError(_part_of_a_place())
    return text


def places_in_ids(ids: list[int], pictures: int, tokens: PlaceIds) -> list[int]:
    """As `places_in_text`, of ids."""
    if tokens.part not in ids and tokens.video not in ids:
        _agree(0, pictures)
        return ids
    if pictures and tokens.video in ids:
        raise RequestError(_no_video())
    shorter: list[int] = []
    places, position = 0, 0
    while position < len(ids):
        token = ids[position]
        position += 1
        shorter.append(token)
        if token != tokens.part:
            continue
        starts = len(shorter) > 1 and shorter[-2] == tokens.start
        run = 1
        while position < len(ids) and ids[position] == tokens.part:
            position += 1
            run += 1
        if starts and position < len(ids) and ids[position] == tokens.end:
            places += 1
        elif pictures:
            raise RequestError(_part_of_a_place())
        else:  # without a picture they are tokens as any other
            shorter.extend([token] * (run - 1))
    _agree(places, pictures)
    return shorter


def _agree(places: int, pictures: int) -> None:
    if places != pictures:
        raise RequestError(
            f"the prompt has {_count(places, 'place')} for images, and {_count(pictures, 'image')} came with it: each "
            f"image, in image_data, needs one {PLACE} in the text, in their order; chat routes write it for each part."
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _part_of_a_place() -> str:
    return (
        f"the prompt has {_PART} outside of a place for an image, which is {PLACE}: leave it out, or put a blank into "
        "the token's name if it is what you write about."
    )


def _no_video() -> str:
    return (
        f"the prompt has {_VIDEO} beside an image, and no videos are read here: leave it out, or put a blank into the "
        "token's name if it is what you write about."
    )
