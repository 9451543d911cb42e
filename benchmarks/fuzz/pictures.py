"""Hypothesis strategies for pictures as clients send them: whole and broken, small and in many forms."""

from __future__ import annotations

import base64
import io
from functools import cache

import numpy as np
from hypothesis import strategies as st
from PIL import Image

# Modes that each file format of Pillow can hold.
FORMATS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "GIF": ("L", "P", "RGB"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "RGB"),
    "TIFF": ("1", "L", "RGB", "RGBA", "CMYK", "F", "I;16"),
    "ICO": ("RGBA",),
    "PPM": ("L", "RGB"),
}
SIZES = ((1, 1), (28, 28), (56, 84), (84, 56), (100, 3), (3, 100), (112, 112), (1, 250), (250, 1), (300, 40))
PLACE = "<|vision_start|><|image_pad|><|vision_end|>"


@cache
def encoded(form: str, mode: str, size: tuple[int, int], seed: int) -> bytes:
    """A file of a picture of random colours.

    Args:
        form: a key of FORMATS.
        mode: Pillow's.
        size: width and height in pixels.
        seed: of the colours.
    """
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    if mode == "I;16":
        picture = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        picture = picture.convert(mode)
    buffer = io.BytesIO()
    options = {"exif": orientation(1 + seed % 8)} if form in ("JPEG", "PNG", "WEBP") else {}
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A MIME subtype and the bytes of a file: mostly whole ones."""
    form = draw(st.sampled_from(sorted(FORMATS)))
    data = encoded(form, draw(st.sampled_from(FORMATS[form])), draw(st.sampled_from(SIZES)), draw(st.integers(0, 20)))
    match draw(st.integers(0, 9)):
        case 0:
            data = data[: draw(st.integers(0, len(data)))]
        case 1:
            at = draw(st.integers(0, len(data) - 1))
            data = data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
        case 2:
            data = draw(st.binary(max_size=40))
    return form.lower(), data


ODD_TEXTS = (
    "", "data:", "data:,", "data:image/png;base64,", "data:image/png;base64,AAAA", "data:image/png;base64,%%%",
    "data:text/html,<b>", "data:image/svg+xml;utf8,<svg xmlns='http://www.w3.org/2000/svg'/>", "/", "/tmp", "file:///tmp",
    "/nonexistent/picture.png", "file:///nonexistent.png", "picture.png", "http://127.0.0.1:9/a.png", "ftp://127.0.0.1/a",
    "http://", "http://[::1", "https://127.0.0.1:9/", "data:image/png;base64,é", "\x00", "a" * 300, "<|image_pad|>",
)  # fmt: skip


@st.composite
def picture_texts(draw: st.DrawFn) -> str:
    """The text that a client puts where a picture goes."""
    if draw(st.integers(0, 7)) == 0:
        return draw(st.sampled_from(ODD_TEXTS))
    subtype, data = draw(files())
    text = base64.b64encode(data).decode()
    form = draw(st.sampled_from(("url", "url", "url", "bare", "upper", "newline", "unpadded", "octets", "parameter")))
    return {
        "url": f"data:image/{subtype};base64,{text}",
        "bare": text,
        "upper": f"DATA:image/{subtype};base64,{text}",
        "newline": f"data:image/{subtype};base64,{text}\n",
        "unpadded": f"data:image/{subtype};base64,{text.rstrip('=')}",
        "octets": f"data:application/octet-stream;base64,{text}",
        "parameter": f"data:image/{subtype};charset=utf-8;base64,{text}",
    }[form]
