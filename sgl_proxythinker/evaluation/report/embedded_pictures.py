"""Pictures of questions as data URLs for a page, small, and in a format that every browser shows."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

LONGEST_SIDE = 320  # pixels
TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
SHOWN_MODES = {"1", "L", "P", "RGB", "RGBA", "LA"}  # a browser's idea of CMYK is not everybody's


class EmbeddedPicture(NamedTuple):
    """A picture, or why there is none."""

    url: str | None
    problem: str | None
    width: int = 0
    height: int = 0


def embed(path: Path) -> EmbeddedPicture:
    """The picture in a file, by what its bytes are: its name says nothing."""
    try:
        held = path.read_bytes()
        with Image.open(io.BytesIO(held)) as picture:
            picture.load()
            if picture.format in TYPES and picture.mode in SHOWN_MODES and max(picture.size) <= LONGEST_SIDE:
                return EmbeddedPicture(_url(TYPES[picture.format], held), None, *picture.size)
            shown = _on_white(ImageOps.exif_transpose(picture))
    except FileNotFoundError:
        return EmbeddedPicture(None, "the run has no such file")
    # What Pillow raises of a broken file depends on the format.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as problem:
        return EmbeddedPicture(None, f"the file is no readable picture ({type(problem).__name__})")
    shown.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    shown.save(file, "WEBP", quality=85)
    return EmbeddedPicture(_url("image/webp", file.getvalue()), None, *shown.size)


def _on_white(picture: Image.Image) -> Image.Image:
    """Black lines on nothing would be lost on a dark page."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def _url(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
