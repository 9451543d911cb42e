"""Pictures of programs and of the oracle: whatever a person holds, as bytes for a server or as pixels to look at."""

from __future__ import annotations

import asyncio
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.pictures.decode import as_seen, decode, open_picture
from sgl_proxythinker.pictures.fetch import Downloads
from sgl_proxythinker.pictures.files import read_file
from sgl_proxythinker.pictures.source import Local, Remote, read_source

_NAME = "the picture"


def see(source: Any) -> Image.Image:
    """A picture as the server sees it.

    Args:
        source: a path, an http(s) or data URL, bytes of a file, or a PIL picture of any mode.

    Returns:
        mode RGB.

    Raises:
        RequestError: it can't be read.
    """
    return as_seen(source, _NAME) if isinstance(source, Image.Image) else decode(picture_bytes(source), _NAME)


def picture_bytes(source: Any) -> bytes:
    """A picture as the bytes of a file, which a server of ours reads as `see` does.

    Args:
        source: as for `see`. A PIL picture becomes a PNG of what is seen; a URL is downloaded here, not by the server.

    Raises:
        RequestError: it is nothing of this, or can't be read.
    """
    if isinstance(source, Image.Image):
        buffer = io.BytesIO()
        as_seen(source, _NAME).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()
    data = _file_bytes(source)
    open_picture(data, _NAME)
    return data


def _file_bytes(source: Any) -> bytes:
    limits = Limits()
    max_bytes = limits.image_max_mib << 20
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str) and not os.path.lexists(source[:4096]):
        found = read_source(source, _NAME, max_bytes)
        if isinstance(found, Remote):
            return _download(found.url, limits, max_bytes)
        source = found.path if isinstance(found, Local) else found
        if isinstance(source, bytes):
            return source
    if isinstance(source, str | os.PathLike):
        return read_file(source, _NAME, max_bytes)
    raise RequestError(
        f"{_NAME} is of the type {type(source).__name__}: a path, a URL, bytes or a PIL picture is wanted."
    )


def _download(url: str, limits: Limits, max_bytes: int) -> bytes:
    async def fetch() -> bytes:
        # Whoever writes a program may fetch from his own network.
        downloads = Downloads(max_bytes, limits.image_url_timeout_s, limits.image_url_redirects, 1, private=True)
        return await downloads.fetch(url, _NAME)

    with ThreadPoolExecutor(1) as pool:  # the calling thread may have an event loop that runs
        return pool.submit(asyncio.run, fetch()).result()
