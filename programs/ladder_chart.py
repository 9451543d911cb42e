"""The picture of a ladder: which answer each strength gives, and how long it is."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sgl_proxythinker.answers import same_answer
from sgl_proxythinker.programs.generation import Generation

# Okabe and Ito's colours, which colour-blind people tell apart. Answers differ by height and marker too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
LABEL_CHARACTERS = 28
NOTHING = "(nothing claimed)"


def draw_chart(question: str, rungs: Sequence[tuple[float, str, Generation]], path: Path) -> None:
    """Write the chart of (alpha, answer, generation), by rising alpha, in the format that the file's name asks for.

    Raises:
        OSError: the file can't be written.
    """
    alphas = [alpha for alpha, _, _ in rungs]
    different, rows = _rows([answer for _, answer, _ in rungs])
    figure = Figure(figsize=(8, 3.6 + 0.35 * len(different)), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [1 + 0.35 * len(different), 1.3]
    answers, tokens = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": heights})

    answers.step(alphas, rows, where="mid", color="0.7", zorder=1)
    for row in range(len(different)):
        here = [alpha for alpha, other in zip(alphas, rows, strict=True) if other == row]
        look = {"color": COLOURS[row % len(COLOURS)], "marker": MARKERS[row % len(MARKERS)], "linestyle": "none"}
        answers.plot(here, [row] * len(here), markersize=10, zorder=2, **look)
    labels = [_plain(answer, LABEL_CHARACTERS) or NOTHING for answer in different]
    answers.set(yticks=range(len(different)), yticklabels=labels, ylim=(len(different) - 0.5, -0.5), ylabel="answer")
    answers.grid(axis="x", alpha=0.3)
    answers.set_title("\n".join(textwrap.wrap(_plain(question, 160), 80)), loc="left", fontsize=11)

    lengths = [made.completion_tokens for _, _, made in rungs]
    tokens.plot(alphas, lengths, color="0.3", marker="o")
    cut = [(alpha, made.completion_tokens) for alpha, _, made in rungs if made.cut_off]
    if cut:
        tokens.plot(
            *zip(*cut, strict=True), color=COLOURS[1], marker="x", markersize=10, linestyle="none", label="cut off"
        )
        tokens.legend()
    tokens.set(xlabel="alpha: strength of guidance (0 is the base alone)", ylabel="tokens", ylim=(0, None))
    tokens.yaxis.set_major_locator(MaxNLocator(integer=True))
    tokens.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def _rows(answers: Sequence[str]) -> tuple[list[str], list[int]]:
    """The different answers as they come, and for each answer which of them it is."""
    different: list[str] = []
    rows = []
    for answer in answers:
        row = next((row for row, one in enumerate(different) if one == answer or same_answer(one, answer)), None)
        if row is None:
            row = len(different)
            different.append(answer)
        rows.append(row)
    return different, rows


def _plain(text: str, characters: int) -> str:
    """One line that matplotlib takes as it is: a dollar would begin mathematics."""
    line = "".join(character if character.isprintable() else " " for character in text).replace("$", r"\$")
    return textwrap.shorten(line, characters, placeholder=" ...") if len(line) > characters else line
