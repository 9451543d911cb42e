"""The base, the guided model and an expert-like one side by side, with their times and tokens.

    proxythinker compare --image figure.png --question "How many?" --alpha 0.5 --expert-alpha 1

For seeing what guidance does to one question. "Expert-like" is alpha 1: the whole of what training changed between
amateur and expert is added to the base, so that wherever base and amateur agree, the result is the expert's own
distribution. It is not the expert itself, which a guided server does not serve alone, and more than 1 overshoots it.
"""

from __future__ import annotations

from collections.abc import Sequence

import sglang as sgl
from PIL import Image
from rich.table import Table
from rich.text import Text

from sgl_proxythinker import proxy_gen
from sgl_proxythinker.answers import THINK_FIRST, ask
from sgl_proxythinker.frontend.guided_backend import GuidedBackend
from sgl_proxythinker.programs.command_line import SERVED_ALPHA, add_question, make_parser, run_command, strength
from sgl_proxythinker.programs.generation import Generation, Result, generation, run, turn
from sgl_proxythinker.programs.terminal import printable, strength_of

EXPERT_ALPHA = 1.0


class Column(Result):
    name: str
    answer: str  # what it claims; empty if nothing
    generation: Generation
    tokens_per_second: float


class Comparison(Result):
    question: str
    reading: Generation  # one token, asked for first: its time is that of reading pictures and question
    columns: list[Column]  # base, guided, expert-like


@sgl.function
def answer(s, pictures, question, alpha, max_tokens):
    s += sgl.user(turn(pictures, question))
    s += sgl.assistant(proxy_gen("answer", alpha=alpha, max_tokens=max_tokens))


def compare(
    backend: GuidedBackend,
    pictures: Sequence[Image.Image],
    question: str,
    *,
    alpha: float = SERVED_ALPHA,
    expert_alpha: float = EXPERT_ALPHA,
    instruction: str = THINK_FIRST,
    max_tokens: int = 1024,
) -> Comparison:
    """The same greedy question at alpha 0, `alpha` and `expert_alpha`, one after the other.

    Pictures and question are read before, once by the base alone and once by three models, so that a column's time is
    that of its own tokens.

    Raises:
        ProgramFailed: a call failed.
    """

    def made(at: float, max_tokens: int) -> Generation:
        asked = {"question": ask(question, instruction), "alpha": at, "max_tokens": max_tokens}
        return generation(run(answer, backend, pictures=pictures, temperature=0, **asked), "answer")

    reading = made(0, 1)
    for at in (alpha, expert_alpha):
        made(at, 1)
    columns = []
    for name, at in (("base", 0.0), ("guided", alpha), ("expert-like", expert_alpha)):
        one = made(at, max_tokens)
        speed = one.completion_tokens / one.seconds
        columns.append(Column(name=name, answer=one.claim, generation=one, tokens_per_second=speed))
    return Comparison(question=question, reading=reading, columns=columns)


def show(comparison: Comparison) -> Table:
    reading = comparison.reading
    # A server may have had some of it in its cache already.
    read = (
        f"{reading.prompt_tokens} prompt tokens read in {reading.seconds:.2f} s, {reading.cached_tokens} of them cached"
    )
    table = Table("", title=printable(comparison.question), caption=read)
    columns = comparison.columns
    for column in columns:
        table.add_column(f"{column.name} ({strength_of(column.generation)})", ratio=1, overflow="fold")
    nothing = Text("nothing was claimed", "italic")
    table.add_row("text", *(printable(column.generation.text) for column in columns), end_section=True)
    table.add_row("answer", *(printable(column.answer) if column.answer else nothing for column in columns))
    lengths = (
        f"{one.completion_tokens}{' (cut off)' if one.cut_off else ''}" for one in (c.generation for c in columns)
    )
    table.add_row("tokens", *lengths)
    table.add_row("time", *(f"{column.generation.seconds:.2f} s" for column in columns))
    table.add_row("tokens/s", *(f"{column.tokens_per_second:.1f}" for column in columns))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("compare", __doc__)
    add_question(parser)
    parser.add_argument("--alpha", type=strength, default=SERVED_ALPHA, help="of the guided column (%(default)s)")
    parser.add_argument("--expert-alpha", type=strength, default=EXPERT_ALPHA, help="of the last column (%(default)s)")
    run_command(
        parser,
        arguments,
        lambda args, backend: compare(
            backend, args.pictures, args.question, alpha=args.alpha, expert_alpha=args.expert_alpha,
            instruction=args.instruction, max_tokens=args.max_tokens,
        ),
        show,
    )  # fmt: skip


if __name__ == "__main__":
    main()
