"""Pictures for tests and measurements, and how any picture travels in a request or a page."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image


def random_picture(seed: int, width: int = 84, height: int = 84) -> Image.Image:
    """A picture of random colours, in pixels: any two differ everywhere, so none is cached for another."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def data_url(picture: Image.Image, form: str = "PNG", **options: Any) -> str:
    """The picture as a `data:` URL.

    Args:
        picture: in a mode that `form` can hold.
        form: a name of Pillow's for a file format that is a MIME subtype too.
        options: Pillow's for that format.
    """
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
