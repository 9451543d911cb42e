"""What a client sent for a picture: bytes in the request, a URL to fetch, or a path; told apart as browsers do."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import pybase64

from sgl_proxythinker.errors import RequestError

_BLANKS = "".join(map(chr, range(33)))  # C0 controls and the space, which a URL may have around it
_BREAKS = b"\t\n\r\f "
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # of two letters or more: C:\ is a drive
_BASE64 = re.compile(r";[ ]*base64[ ]*$", re.IGNORECASE)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")

# How the encoded pictures begin that clients send without any `data:` before them.
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0")

WANTED = "send a data: URL, base64 of the file, or an http(s) URL"


@dataclass(frozen=True)
class Remote:
    """A picture to download."""

    url: str


@dataclass(frozen=True)
class Local:
    """A picture in a file of this host; its text is what came, and not checked yet."""

    path: str


def read_source(text: str, name: str, max_bytes: int) -> bytes | Remote | Local:
    """Tell what a string stands for, and decode what it holds.

    Args:
        text: a `data:` URL, an http(s) or file URL, base64 of an encoded picture, or a path.
        name: of the picture in error messages, as "image 2".
        max_bytes: length of the encoded picture that is taken.

    Returns:
        the file's bytes, or where they are to be fetched from.

    Raises:
        RequestError: HTTP 400 with the reason; it quotes at most a few characters.
    """
    text = text.strip(_BLANKS)  # the same object where there are none: it may be of many megabytes
    if not text:
        raise RequestError(f"{name} is an empty string: {WANTED}.")
    scheme = _SCHEME.match(text[:64])
    if scheme is None:
        return _without_scheme(text, name, max_bytes)
    kind = scheme[1].lower()
    if kind == "data":
        return _data_url(text, scheme.end(), name, max_bytes)
    if kind in ("http", "https"):
        return Remote(kind + text[scheme.end() - 1 :])
    if kind == "file":
        return Local(_file_path(text, name))
    raise RequestError(f"{name} is a URL of the scheme {scheme[1][:20]!r}, which only its sender can read: {WANTED}.")


def _data_url(text: str, start: int, name: str, max_bytes: int) -> bytes:
    """What stands behind `data:`, which ends at `start`. Megabytes are copied once."""
    comma = text.find(",", start, start + 4096)
    if comma < 0:
        raise RequestError(f"{name} is a data: URL without a comma, so it has no data: data:image/png;base64,....")
    end = text.find("#", comma)
    body = text[comma + 1 :] if end < 0 else text[comma + 1 : end]
    if _BASE64.search(text[start:comma]):
        return _base64(body, name, max_bytes)
    _check_length(len(body) // 3, name, max_bytes)  # each byte may be written as %XX
    data = unquote_to_bytes(body)
    _check_length(len(data), name, max_bytes)
    return data


def _without_scheme(text: str, name: str, max_bytes: int) -> bytes | Local:
    """Base64 or a path: base64 of a JPEG begins as an absolute path does, so it is what it begins with that counts."""
    try:
        head = pybase64.b64decode(text[:16].translate(str.maketrans("-_", "+/")), validate=True)
    except (ValueError, UnicodeError):
        head = b""
    if head.startswith(_MAGIC) or (head[4:8] == b"ftyp" and head[8:12]) or len(text) > 4096:
        return _base64(text, name, max_bytes)
    return Local(text)


def _base64(text: str, name: str, max_bytes: int) -> bytes:
    """Base64 as browsers forgive it, and its URL-safe alphabet."""
    if len(text) * 3 // 4 <= max_bytes:
        with contextlib.suppress(ValueError):
            return pybase64.b64decode(text, validate=True)  # nearly all: one pass over megabytes
    try:
        encoded = text.encode("ascii")
    except UnicodeEncodeError:
        raise RequestError(f"{name} is not base64: it has characters that are not ASCII.") from None
    _check_length(len(encoded) * 3 // 4 if b"%" not in encoded else 0, name, max_bytes)
    if b"%" in encoded:
        encoded = unquote_to_bytes(encoded)
    if any(character in encoded for character in (*(bytes([blank]) for blank in _BREAKS), b"-", b"_")):
        encoded = encoded.translate(_URL_SAFE, _BREAKS)
    encoded = encoded.rstrip(b"=")
    _check_length(len(encoded) * 3 // 4, name, max_bytes)
    try:
        return pybase64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise RequestError(f"{name} is not base64: {_what_is_wrong(encoded)}.") from None


def _what_is_wrong(encoded: bytes) -> str:
    foreign = re.search(rb"[^A-Za-z0-9+/]", encoded)
    if foreign is not None:
        return f"character {foreign.start() + 1} is {foreign[0].decode('latin-1')!r}"
    return "its last character is missing" if len(encoded) % 4 == 1 else "it is cut off"


def _check_length(length: int, name: str, max_bytes: int) -> None:
    if length > max_bytes + 2:
        raise RequestError(too_long(name, max_bytes))


def too_long(name: str, max_bytes: int) -> str:
    """The sentence for an encoded picture of more than `max_bytes`."""
    return (
        f"{name} is longer than the {max_bytes / 2**20:g} MiB of an encoded image that are taken: send a smaller one, "
        "or raise --proxy-image-max-mib."
    )


def _file_path(url: str, name: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise RequestError(f"{name} is no valid file: URL.") from None
    if parts.netloc.lower() not in ("", "localhost"):
        raise RequestError(f"{name} is a file: URL of another host: {WANTED}.")
    return unquote(parts.path)
