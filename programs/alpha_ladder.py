"""Ask one question at many strengths at once, and see where the answer changes.

    proxythinker alpha-ladder --image figure.png --question "How many?" --alphas 0 0.25 0.5 0.75 1 1.5 2

For choosing a strength, and for seeing how much of an answer is the expert's. Decoding is greedy, so that whatever
differs between two rungs is the strength's doing. `--plot` draws it.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import sglang as sgl
from PIL import Image
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sgl_proxythinker import proxy_gen
from sgl_proxythinker.answers import THINK_FIRST, ask, same_answer
from sgl_proxythinker.frontend.guided_backend import GuidedBackend
from sgl_proxythinker.programs.command_line import add_alphas, add_question, add_regex, make_parser, run_command
from sgl_proxythinker.programs.generation import Generation, Result, generation, run, run_batch, turn
from sgl_proxythinker.programs.ladder_chart import draw_chart
from sgl_proxythinker.programs.terminal import printable

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


class Rung(Result):
    alpha: float
    answer: str  # what it claims; empty if nothing
    generation: Generation


class Ladder(Result):
    question: str
    rungs: list[Rung]  # by rising alpha
    changes: list[tuple[float, float]]  # pairs of neighbouring alphas between which the answer becomes another one


@sgl.function
def climb(s, pictures, question, alpha, regex, max_tokens):
    s += sgl.user(turn(pictures, question))
    s += sgl.assistant(proxy_gen("answer", alpha=alpha, regex=regex, max_tokens=max_tokens))


def alpha_ladder(
    backend: GuidedBackend,
    pictures: Sequence[Image.Image],
    question: str,
    *,
    alphas: Sequence[float] = ALPHAS,
    regex: str | None = None,
    instruction: str = THINK_FIRST,
    max_tokens: int = 1024,
    progress_bar: bool = False,
) -> Ladder:
    """The greedy answer at each strength.

    Args:
        alphas: two at least; the order does not matter, and one that is there twice is asked once.
        regex: that each whole answer matches, as "[ABCD]"; for questions that need no thought.
        progress_bar: of the answers, on stderr.

    Raises:
        ProgramFailed: a call failed.
        ValueError: fewer than two different alphas.
    """
    rising = sorted(set(alphas))
    if len(rising) < 2:
        raise ValueError("a ladder has two rungs at least: give more alphas")
    asked = {"question": ask(question, instruction), "regex": regex, "max_tokens": max_tokens}
    each = [{"pictures": pictures, "alpha": alpha, **asked} for alpha in rising]
    # One token ahead, so that the rungs find pictures and question in the prefix cache: alpha 0 has a part of its own.
    for one in {rung["alpha"] == 0: rung for rung in each}.values():
        run(climb, backend, **{**one, "max_tokens": 1})
    states = run_batch(climb, backend, each, temperature=0, progress_bar=progress_bar)
    made = [generation(state, "answer") for state in states]
    rungs = [Rung(alpha=alpha, answer=one.claim, generation=one) for alpha, one in zip(rising, made, strict=True)]
    changes = [(low.alpha, high.alpha) for low, high in itertools.pairwise(rungs) if differ(low.answer, high.answer)]
    return Ladder(question=question, rungs=rungs, changes=changes)


def differ(one: str, other: str) -> bool:
    """Whether two answers are different ones; two that claim nothing are not."""
    return bool(one or other) and not same_answer(one, other)


def show(ladder: Ladder) -> Group:
    table = Table("alpha", "answer", "text", "tokens", title=printable(ladder.question))
    starts = {high for _, high in ladder.changes}
    for rung in ladder.rungs:
        if rung.alpha in starts:
            table.add_section()
        made = rung.generation
        tokens = f"{made.completion_tokens}{' (cut off)' if made.cut_off else ''}"
        answer = printable(rung.answer) if rung.answer else Text("nothing was claimed", "italic")
        table.add_row(f"{rung.alpha:g}", answer, printable(made.text), tokens)
    between = ", ".join(f"{low:g} and {high:g}" for low, high in ladder.changes)
    return Group(table, Text(f"The answer changes between {between}." if between else "The answer never changes."))


def chart_file(name: str) -> Path:
    path = Path(name)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"{name} is none of .png, .svg, .pdf")
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("alpha_ladder", __doc__)
    add_question(parser)
    add_alphas(parser, ALPHAS)
    add_regex(parser)
    parser.add_argument("--plot", type=chart_file, metavar="FILE", help="draw the ladder: .png, .svg or .pdf")

    def work(args, backend):
        ladder = alpha_ladder(
            backend, args.pictures, args.question, alphas=args.alphas, regex=args.regex, instruction=args.instruction,
            max_tokens=args.max_tokens, progress_bar=sys.stderr.isatty(),
        )  # fmt: skip
        if args.plot is not None:
            drawn = [(rung.alpha, rung.answer, rung.generation) for rung in ladder.rungs]
            draw_chart(ladder.question, drawn, args.plot)
        return ladder

    run_command(parser, arguments, work, show)


if __name__ == "__main__":
    main()
