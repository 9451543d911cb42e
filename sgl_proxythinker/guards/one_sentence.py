"""What an exception says, short enough and clean enough for a client."""

from __future__ import annotations

from sgl_proxythinker.sentences import tidy

_NO_REASON = "the server's grammar library can't compile it (--grammar-backend names another one)"


def one_sentence(error: BaseException | str, characters: int = 300) -> str:
    """The beginning of an error on one line, without addresses, paths and places in a source.

    Args:
        error: an exception or its text.
        characters: the most that are kept.
    """
    text = tidy((str(error) or type(error).__name__)[: 10 * characters])
    return (text if len(text) <= characters else text[: characters - 1] + "…").rstrip(". ")


def compiler_reason(problem: BaseException | str) -> str:
    """What llguidance has against a pattern or a grammar, out of its several lines that point into the text."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()] or [_NO_REASON]
    told = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    if "lookarounds not supported" in told:
        told = "it has an anchor or a word boundary"
    return one_sentence(told.split(" in regex /")[0])
