"""What an exception says, short enough and clean enough for a client."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+|0x[0-9a-fA-F]{6,}")
_PATH = re.compile(
    r"(?:File \")?/(?:[\w.+-]+/)+[\w.+-]+\"?(?:, line \d+)?|\[[^\]]*\.cc?p?p?:\d+\]|\S+\.(?:cc|cpp|h|rs):\d+:?"
)


def one_sentence(error: BaseException | str, characters: int = 300) -> str:
    """The first lines of an error without addresses, paths and line breaks.

    Args:
        error: an exception or its text.
        characters: the most that are kept.
    """
    text = str(error) or type(error).__name__
    text = " ".join(_PATH.sub("", _ADDRESS.sub("", text[: 10 * characters])).split())
    return (text if len(text) <= characters else text[: characters - 1] + "…").rstrip(". ")
