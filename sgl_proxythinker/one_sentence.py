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


def compiler_reason(problem: BaseException | str) -> str:
    """What llguidance has against a pattern or a grammar, out of its several lines that point into the text."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()] or [type(problem).__name__]
    told = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    if "lookarounds not supported" in told:
        told = "it has an anchor or a word boundary"
    return one_sentence(told.split(" in regex /")[0])
