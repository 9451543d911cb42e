"""Download a picture for a client, within bounds: bytes, time, redirects, and the addresses that are connected to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.pictures.addresses import is_public
from sgl_proxythinker.pictures.source import too_long

_PIECE = 1 << 16
# Each piece is a turn of the event loop that all requests pass: a host that sends a few bytes each slows them all.
_FEW_PIECES, _LEAST_PIECE = 10_000, 64  # pieces; bytes of one, on average
_REDIRECTS = (301, 302, 303, 307, 308)
# The whole body as it was stored: a compressed one could grow past every bound.
_HEADERS = {"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity", "User-Agent": "sgl-proxythinker"}

_OR_PRIVATE = (
    ", or it is this host or one of a private network, which a server takes with --proxy-image-url-private only."
)


class Downloads:
    """The downloads of one server, a bounded number at once.

    Args:
        max_bytes: of one picture.
        timeout_s: for one picture, from waiting for its turn to its last byte, redirects included.
        redirects: that one download follows.
        at_once: downloads that run at any one time; others wait.
        private: addresses of this host and of private networks may be connected to.
    """

    def __init__(self, max_bytes: int, timeout_s: float, redirects: int, at_once: int, private: bool) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._redirects = redirects
        self._private = private
        self._turns = asyncio.Semaphore(at_once)
        # Looking up a name can take long and can't be ended: it has threads of its own, and no more than downloads.
        self._lookups = ThreadPoolExecutor(at_once, thread_name_prefix="proxythinker-names")

    async def fetch(self, url: str, name: str, count: Callable[[int], None] = lambda size: None) -> bytes:
        """The body that an http(s) URL answers with.

        Every connection is checked: the address is looked at when its socket is made, whatever the name resolved to
        before, and again at each redirect. Proxies and passwords of the environment are not used.

        Args:
            url: as it came.
            name: of the picture in error messages.
            count: is told the bytes of each piece, and may refuse it.

        Raises:
            RequestError: HTTP 400 with the reason.
        """
        try:
            async with asyncio.timeout(self._timeout_s), self._turns:
                return await self._follow(url, name, count)
        except TimeoutError:
            raise RequestError(
                f"{name} could not be downloaded within {self._timeout_s:g} s (--proxy-image-url-timeout-s)."
            ) from None

    async def _follow(self, address: str, name: str, count: Callable[[int], None]) -> bytes:
        url = _parse(address, name)
        for _ in range(self._redirects + 1):
            body, redirected_to = await self._get(url, name, count)
            if redirected_to is None:
                return body
            url = redirected_to
        raise RequestError(
            f"{name} is redirected more than {self._redirects} times (--proxy-image-url-redirects): send its last URL."
        )

    async def _get(self, url: URL, name: str, count: Callable[[int], None]) -> tuple[bytes, URL | None]:
        """The body, or where it is said to be."""
        refused: list[str] = []

        def make_socket(info: Any) -> socket.socket:
            family, kind, protocol, _, where = info
            if not self._private and not is_public(where[0]):
                refused.append(where[0])
                raise OSError("not a public address")
            return socket.socket(family, kind, protocol)

        connector = aiohttp.TCPConnector(
            resolver=_Resolver(self._lookups), socket_factory=make_socket, use_dns_cache=False, force_close=True
        )
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False,
                    headers=_HEADERS, timeout=aiohttp.ClientTimeout(total=None),
                ) as session,
                session.get(url, allow_redirects=False) as response,
            ):  # fmt: skip
                if response.status in _REDIRECTS and "Location" in response.headers:
                    return b"", _parse(response.headers["Location"], name, url)
                return await self._body(response, name, count), None
        except aiohttp.ClientConnectorError as error:
            if refused or isinstance(error, aiohttp.ClientConnectorDNSError):
                # One sentence: whoever asks must not learn which names there are in a private network.
                raise RequestError(
                    f"{name} can't be downloaded: its host is not found" + ("." if self._private else _OR_PRIVATE)
                ) from None
            raise RequestError(f"{name} can't be downloaded: its host does not answer.") from None
        except aiohttp.InvalidURL:  # as of an IPv4 address that is written as one number
            raise RequestError(f"{name} is no valid http(s) URL.") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, RequestError | TimeoutError):
                raise
            raise RequestError(f"{name} can't be downloaded: the connection broke, or no HTTP came.") from None

    async def _body(self, response: aiohttp.ClientResponse, name: str, count: Callable[[int], None]) -> bytes:
        if response.status != 200:
            raise RequestError(f"{name} can't be downloaded: its host answers {response.status}.")
        if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise RequestError(f"{name} can't be downloaded: its host compresses it, though it was asked not to.")
        if (response.content_length or 0) > self._max_bytes:
            raise RequestError(too_long(name, self._max_bytes))
        pieces, length = [], 0
        async for piece in response.content.iter_chunked(_PIECE):
            length += len(piece)
            count(len(piece))
            if length > self._max_bytes:
                raise RequestError(too_long(name, self._max_bytes))
            pieces.append(piece)
            if len(pieces) > _FEW_PIECES and length < len(pieces) * _LEAST_PIECE:
                raise RequestError(f"{name} can't be downloaded: its host sends it in pieces of a few bytes.")
        return b"".join(pieces)


class _Resolver(AbstractResolver):
    """Names to addresses, in threads of our own."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        def look_up() -> list[ResolveResult]:
            found: list[Any] = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
            return [
                ResolveResult(
                    hostname=host, host=address[0], port=address[1], family=kind, proto=protocol,
                    flags=socket.AI_NUMERICHOST,
                )
                for kind, _, protocol, _, address in found
            ]  # fmt: skip

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        except UnicodeError as error:  # a label of more than 63 characters
            raise OSError("no such host") from error

    async def close(self) -> None:
        """Nothing of its own is open."""


def _parse(text: str, name: str, base: URL | None = None) -> URL:
    try:
        url = URL(text.strip()) if base is None else base.join(URL(text.strip()))
        if url.scheme in ("http", "https") and url.host and url.port:
            return url
    except ValueError:
        pass
    what = "is no valid http(s) URL" if base is None else "is redirected to something else than an http(s) URL"
    raise RequestError(f"{name} {what}.")
