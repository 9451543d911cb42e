"""Grey of 12, 16 and 32 bits and of floating point: scaled to 8 bits, where Pillow's `convert` clips it to white."""

from __future__ import annotations

import numpy as np
from PIL import Image

_ROWS = 256
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT, _WHITE_IS_ZERO = 258, 262, 339, 0  # tags of TIFF


def is_deep_grey(picture: Image.Image) -> bool:
    """Whether one sample of a pixel has more than 8 bits."""
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def to_eight_bits(picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Scale a picture of `is_deep_grey` to 0..255.

    White is: 4095 in a file that says it has 12 bits; 65535 for 16 bits; for 32-bit integers 255 where no pixel is
    above it, else 65535, else the greatest value of 31 bits, or of 32 where one is above that; for floating point 1
    where no pixel is above it, else as for integers. Negative values are black, and so is what is no number.

    Returns:
        mode L, and the opacity in mode L where the file names a transparent grey, else None.
    """
    values = np.asarray(picture)
    tags = getattr(picture, "tag_v2", {})
    if picture.mode == "I" and tags.get(_BITS_PER_SAMPLE) == (32,) and tags.get(_SAMPLE_FORMAT, (1,)) == (1,):
        values = values.view(np.uint32)  # Pillow reads unsigned numbers as signed ones
    white = _white(picture, values, tags)
    grey = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS):  # a band at a time, for the copies in floating point
        band = values[start : start + _ROWS].astype(np.float32)
        band = np.nan_to_num(band, nan=0.0, posinf=white, neginf=0.0) * np.float32(255 / white)
        grey[start : start + _ROWS] = np.rint(np.clip(band, 0, 255))
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts 8 bits and fewer only
        np.subtract(255, grey, out=grey)
    key = picture.info.get("transparency")
    mask = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)) if isinstance(key, int) else None
    return Image.fromarray(grey), mask


def _white(picture: Image.Image, values: np.ndarray, tags: dict) -> float:
    if picture.mode.startswith("I;16"):
        return 4095 if tuple(np.atleast_1d(tags.get(_BITS_PER_SAMPLE, 16))) == (12,) else 65535
    if picture.format == "PPM" and picture.mode != "F":  # Pillow scales every maximum to this one
        return 65535
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    top = finite.max(initial=0)
    ladder = (1, 255, 65535) if picture.mode == "F" else (255, 65535)
    return next((white for white in ladder if top <= white), _above(float(top)))


def _above(top: float) -> float:
    """White of a picture whose values need more than 16 bits."""
    return next((white for white in (2**31 - 1, 2**32 - 1) if top <= white), top)
