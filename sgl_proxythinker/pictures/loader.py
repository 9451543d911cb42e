"""Read the pictures of a server's requests: within bounds, off the event loop, so that a slow one delays no other."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.pictures.decode import as_seen, check_size, open_picture
from sgl_proxythinker.pictures.fetch import Downloads
from sgl_proxythinker.pictures.files import read_file, read_in_folder
from sgl_proxythinker.pictures.key import digest_of, digest_of_pixels
from sgl_proxythinker.pictures.part import check_detail, check_picture_settings
from sgl_proxythinker.pictures.source import Local, Remote, read_source

_THREADS = min(8, os.cpu_count() or 1)


class Loaded(NamedTuple):
    """The pictures of one request, in their order."""

    images: list[Image.Image]  # mode RGB
    digests: list[bytes]  # of what was sent; what their keys are made of


class _Opened(NamedTuple):
    picture: Image.Image  # header read, not decoded where it came as bytes
    data: bytes | None  # of its file; None: it came without one, and its pixels as they are seen tell its key


class PictureLoader:
    """The loader of one server, used in its event loop only."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._max_bytes = limits.image_max_mib << 20
        self._max_pixels = limits.image_max_megapixels * 1_000_000
        self._budget = PixelBudget(limits.image_total_megapixels * 1_000_000)
        # Downloads wait in the event loop and hold no thread: a slow host delays nobody's decoding.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="proxythinker-pictures")
        # For clients, and for callers in this process, who may connect to whatever the process may.
        self._downloads = {
            is_local: Downloads(
                self._max_bytes, limits.image_url_timeout_s, limits.image_url_redirects, limits.image_urls_at_once,
                limits.image_url_private or is_local,
            )
            for is_local in (False, True)
        }  # fmt: skip

    @contextlib.asynccontextmanager
    async def load(self, sources: Sequence[Any], is_local: bool) -> AsyncIterator[Loaded]:
        """The pictures of one request; their pixels count against the server's budget until the block ends.

        Args:
            sources: what came for each picture: a string, or SGLang's `ImageData`; from a caller in this process also
                a path, bytes, or a PIL picture.
            is_local: the caller runs in this process, and may name files and hosts as he could open them himself.

        Raises:
            RequestError: HTTP 400; names the picture, and never quotes more than a few characters of it.
        """
        if len(sources) > self._limits.max_images:
            raise RequestError(
                f"the request has {len(sources)} images, and {self._limits.max_images} are taken (--proxy-max-images)."
            )
        names = ["the image" if len(sources) == 1 else f"image {number + 1}" for number in range(len(sources))]
        held = HeldBytes(self._limits.max_body_mib << 20)
        opened = await _all(
            self._open(source, name, is_local, held) for source, name in zip(sources, names, strict=True)
        )
        pixels = sum(one.picture.width * one.picture.height for one in opened)
        async with self._budget.holding(pixels):
            # At the same time: both leave the interpreter to others, and a file of megabytes takes milliseconds.
            digests = _all(self._digest(one) for one in opened)
            seen = _all(
                self._in_thread(as_seen, one.picture, name, one.data is not None)
                for one, name in zip(opened, names, strict=True)
            )
            told, images = await _all((digests, seen))
            for number, digest in enumerate(told):
                if digest is None:
                    told[number] = await self._in_thread(digest_of_pixels, images[number])
            yield Loaded(images, told)

    async def _open(self, source: Any, name: str, is_local: bool, held: HeldBytes) -> _Opened:
        source = _unwrap(source, name)
        if isinstance(source, str):
            source = await self._in_thread(self._read_string, source, name, is_local)
            if isinstance(source, Remote):
                source = await self._downloads[is_local].fetch(source.url, name, held.add)
            else:
                held.add(len(source))
        elif not is_local:
            raise RequestError(f"{name} is {_kind(source)}: a string is wanted.")
        return await self._in_thread(self._open_bytes, source, name)

    async def _digest(self, opened: _Opened) -> bytes | None:
        return None if opened.data is None else await self._in_thread(digest_of, opened.data)

    def _read_string(self, text: str, name: str, is_local: bool) -> bytes | Remote:
        source = read_source(text, name, self._max_bytes)
        if isinstance(source, Local):
            if is_local:
                return read_file(source.path, name, self._max_bytes)
            return read_in_folder(source.path, self._limits.image_folder, name, self._max_bytes)
        return source

    def _open_bytes(self, source: Any, name: str) -> _Opened:
        if isinstance(source, Image.Image):
            check_size(source, name, self._max_pixels)
            return _Opened(source, None)
        if isinstance(source, os.PathLike):
            source = read_file(source, name, self._max_bytes)
        if not isinstance(source, bytes | bytearray | memoryview):
            raise RequestError(f"{name} is {_kind(source)}: a path, a URL, bytes or a PIL picture is wanted.")
        source = bytes(source)
        return _Opened(open_picture(source, name, self._max_pixels), source)

    async def _in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, answered(work), *arguments)


class HeldBytes:
    """Encoded pictures of one request: those that it names by URL or path are no more than those that it can send.

    Args:
        most: bytes, of a body.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    def add(self, count: int) -> None:
        """Raise RequestError where the request's pictures have become too many bytes."""
        self._held += count
        if self._held > self._most:
            raise RequestError(
                f"the request's images are files of more than {self._most >> 20} MiB together, as a body may have "
                "(--proxy-max-body-mib): send fewer or smaller ones."
            )


class PixelBudget:
    """Pixels that may be decoded at any one time; who comes first is served first.

    Args:
        total: of all that hold some.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def holding(self, pixels: int) -> AsyncIterator[None]:
        """Wait for so many pixels, and give them back at the end of the block.

        Raises:
            RequestError: more than there are at all.
        """
        if pixels > self._total:
            raise RequestError(
                f"the request's images have {pixels:,} pixels together, and {self._total:,} are decoded at any one "
                "time: send fewer or smaller ones, or raise --proxy-image-total-megapixels."
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, turn))
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:  # `_serve` passes over a turn that was cancelled
            self._serve()
            if turn.done() and not turn.cancelled():
                self._give_back(pixels)
            raise
        try:
            yield
        finally:
            self._give_back(pixels)

    def _give_back(self, pixels: int) -> None:
        self._free += pixels
        self._serve()

    def _serve(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._free):
            pixels, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= pixels
                turn.set_result(None)


def refuse_settings(request: Any) -> None:
    """Refuse fields of SGLang's request that would choose a resolution or a key of a cache; see `part`.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    check_picture_settings(vars(request))


def answered(work: Callable[..., Any]) -> Callable[..., Any]:
    """A function for another thread whose failure always comes back.

    Python can't put a StopIteration into a future: the future would never be done, and its request never answered.
    """

    @functools.wraps(work)
    def run(*arguments: Any, **named: Any) -> Any:
        try:
            return work(*arguments, **named)
        except StopIteration as stop:
            raise RuntimeError(f"{getattr(work, '__name__', 'a step')} ended before it was done") from stop

    return run


async def _all(works: Any) -> list[Any]:
    """Results of coroutines that run at the same time; the first failure ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _unwrap(source: Any, name: str) -> Any:
    """The URL of SGLang's `ImageData`, of which other wishes are refused."""
    if isinstance(source, dict):
        fields = source
    elif hasattr(source, "url") and not isinstance(source, str | Path | Image.Image):
        fields = vars(source)
    else:
        return source
    check_detail(fields.get("detail"), f"the detail of {name}")
    check_picture_settings(fields)
    if not isinstance(fields.get("url"), str):
        raise RequestError(f"{name} is a dict without a url: a string is wanted.")
    return fields["url"]


def _kind(value: Any) -> str:
    return "null" if value is None else f"of the type {type(value).__name__}"
