"""Pictures in files of this host: regular ones, of bounded length, and for HTTP clients below one folder only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.pictures.source import WANTED, too_long


def read_in_folder(path: str, folder: Path | None, name: str, max_bytes: int) -> bytes:
    """A picture that an HTTP client names by its path.

    Args:
        path: absolute; symbolic links are followed, and what they lead to counts.
        folder: resolved; None: no path is taken.

    Raises:
        RequestError: one sentence for a path that leads out of the folder, to nothing, or to no regular file, so that
            nobody learns which files there are.
    """
    if not path.startswith("/"):
        or_path = "" if folder is None else ", or an absolute path below --proxy-image-folder"
        raise RequestError(
            f"{name} is {path[:40]!r}, which is neither base64 of a picture nor a URL: {WANTED}{or_path}."
        )
    if folder is None:
        raise RequestError(
            f"{name} is a path, and this server reads no files for clients: {WANTED}, or start it with "
            "--proxy-image-folder."
        )
    try:
        real = os.path.realpath(path, strict=True)
        if not _is_below(real, folder):
            raise PermissionError
        data = _read_regular(real, max_bytes, folder)
    except (OSError, ValueError):  # ValueError: a path with a zero byte
        raise RequestError(
            f"{name} is a path where no picture can be read: it takes a regular file below --proxy-image-folder."
        ) from None
    if len(data) > max_bytes:
        raise RequestError(too_long(name, max_bytes))
    return data


def read_file(path: str | os.PathLike[str], name: str, max_bytes: int) -> bytes:
    """A picture of a caller in this process, who may read what the process may read.

    Raises:
        RequestError: there is no such file, it can't be read, is none, or too long.
    """
    try:
        data = _read_regular(os.path.realpath(path), max_bytes)
    except IsADirectoryError:
        raise RequestError(f"{name} is {os.fspath(path)!r}, a folder and no picture.") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no path"
        raise RequestError(f"{name} is {os.fspath(path)!r}, which can't be read: {why}.") from None
    if len(data) > max_bytes:
        raise RequestError(too_long(name, max_bytes))
    return data


def _read_regular(path: str, max_bytes: int, folder: Path | None = None) -> bytes:
    """Up to `max_bytes` + 1 bytes. Never waits: pipes and devices are told from files before anything is read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError
        if not stat.S_ISREG(mode):
            raise PermissionError(None, "it is no regular file")
        # A link may have been put into the path since it was resolved: what was opened counts.
        if folder is not None and not _is_below(os.readlink(f"/proc/self/fd/{descriptor}"), folder):
            raise PermissionError
        pieces, left = [], max_bytes + 1
        while left and (piece := file.read(min(left, 1 << 20))):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)


def _is_below(real: str, folder: Path) -> bool:
    return Path(real).is_relative_to(folder)
