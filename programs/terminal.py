"""How generations look in a terminal."""

from __future__ import annotations

from rich.panel import Panel
from rich.text import Text

from sgl_proxythinker.programs.generation import Generation


def printable(text: str) -> Text:
    """Model text as it came: no markup is read in it, and what can't be printed becomes a dot."""
    return Text("".join(character if character.isprintable() or character == "\n" else "·" for character in text))


def strength_of(generation: Generation) -> str:
    """At what strength it was made, in words."""
    return "strength by a law" if generation.alpha is None else f"alpha {generation.alpha:g}"


def figures(generation: Generation) -> str:
    """Strength, tokens, time and cache in one line."""
    cut = ", cut off" if generation.cut_off else ""
    return (
        f"{strength_of(generation)}, {generation.completion_tokens} tokens{cut} in {generation.seconds:.2f} s, "
        f"{generation.cached_tokens} of {generation.prompt_tokens} prompt tokens cached"
    )


def panel(title: str, generation: Generation) -> Panel:
    """A text in a frame that says what made it."""
    return Panel(printable(generation.text), title=printable(title), subtitle=figures(generation))


def answer_line(name: str, answer: str) -> Text:
    """A final answer, or that there is none."""
    return Text.assemble((f"{name}: ", "bold"), printable(answer) if answer else ("nothing was claimed", "italic"))
