"""A picture on its way to the server: the file that the data set has, or one within a preset's limits of pixels."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable

from PIL import Image

from sgl_proxythinker.evaluation.presets import Preset
from sgl_proxythinker.pictures.decode import decode, open_picture

_FACTOR = 28  # pixels of an image token of Qwen2.5-VL, along each side
_SENT_AS_STORED = ("JPEG", "PNG", "WEBP", "GIF")  # what every OpenAI-compatible server reads


def data_url(data: bytes, preset: Preset) -> str:
    """A `data:` URL, of the type that the bytes have: data sets have PNG files that are called .jpg.

    Args:
        data: a picture's file.
        preset: with limits or without. A picture within them is sent as it is stored; the server's processor scales it
            to whole image tokens itself.
    """
    picture = open_picture(data, "a picture of the data set")
    size = size_within(picture.size, preset.min_pixels, preset.max_pixels)
    if size == picture.size and picture.format in _SENT_AS_STORED:
        return _url(data, Image.MIME[picture.format])
    seen = decode(data, "a picture of the data set")
    if size != picture.size:
        # Turned by its EXIF data, its sides are the other way round.
        seen = seen.resize(size_within(seen.size, preset.min_pixels, preset.max_pixels), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    seen.save(buffer, "PNG")
    return _url(buffer.getvalue(), "image/png")


def size_within(size: tuple[int, int], min_pixels: int | None, max_pixels: int | None) -> tuple[int, int]:
    """Width and height in pixels within limits, in whole image tokens where it is scaled, by Qwen2-VL's rule."""
    width, height = size
    if max_pixels is not None and width * height > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        return _tokens(width / shrink, math.floor), _tokens(height / shrink, math.floor)
    if min_pixels is not None and width * height < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        return _tokens(width * grow, math.ceil), _tokens(height * grow, math.ceil)
    return size


def _tokens(pixels: float, whole: Callable[[float], int]) -> int:
    return max(_FACTOR, whole(pixels / _FACTOR) * _FACTOR)


def _url(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
