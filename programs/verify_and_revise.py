"""Answer, look at the picture again to find fault with the answer, and revise it until the critique agrees.

    proxythinker verify-and-revise --image figure.png --question "What is the angle at B?" --rounds 3

For questions whose answers are easier to check than to find. The critique sees the pictures a second time, after the
answer: what it attends to is then chosen by what the answer claims. Its verdict is constrained to one of two words, so
that the program and not a reader decides whether to go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import sglang as sgl
from PIL import Image
from rich.console import Group, RenderableType
from rich.text import Text

from sgl_proxythinker import proxy_gen
from sgl_proxythinker.answers import THINK_FIRST, ask
from sgl_proxythinker.frontend.guided_backend import GuidedBackend
from sgl_proxythinker.programs.command_line import add_alpha, add_question, make_parser, positive, run_command
from sgl_proxythinker.programs.generation import Generation, Result, checked, generation, run, turn
from sgl_proxythinker.programs.terminal import answer_line, panel

LOOK_AGAIN = (
    "Here is what the question shows, once more. Look at each thing that the answer relies on: is it really so?"
)
CRITIQUE = "Check the answer above: redo each step, look for what it overlooked, and then say whether it is correct."
REVISE = "Answer the question again, and correct what the critique found."
CORRECT, WRONG = "correct", "wrong"


class Round(Result):
    critique: Generation
    verdict: Literal["correct", "wrong"]
    revision: Generation | None  # of an answer that was found wrong


class Revised(Result):
    question: str
    first: Generation
    rounds: list[Round]
    answer: str  # what the last revision claims; empty where it claims nothing
    agreed: bool  # the last critique agrees with it; else the rounds were used up


@sgl.function
def revise(s, pictures, question, instruction, alpha, rounds, max_tokens):
    s += sgl.user(turn(pictures, ask(question, instruction)))
    s += sgl.assistant(proxy_gen("answer_0", alpha=alpha, max_tokens=max_tokens))
    for done in range(rounds):
        s += sgl.user(turn(pictures, f"{LOOK_AGAIN} {CRITIQUE}" if pictures else CRITIQUE))
        s += sgl.assistant_begin() + proxy_gen(f"critique_{done}", alpha=alpha, max_tokens=max_tokens)
        s += "\n\nThe final answer is "
        s += proxy_gen(f"verdict_{done}", alpha=alpha, max_tokens=8, regex=f"({CORRECT}|{WRONG})")
        s += sgl.assistant_end()
        if checked(s)[f"verdict_{done}"] == CORRECT:
            return done + 1
        s += sgl.user(ask(REVISE, instruction))
        s += sgl.assistant(proxy_gen(f"answer_{done + 1}", alpha=alpha, max_tokens=max_tokens))
    return rounds


def verify_and_revise(
    backend: GuidedBackend,
    pictures: Sequence[Image.Image],
    question: str,
    *,
    alpha: float | None = None,
    rounds: int = 3,
    instruction: str = THINK_FIRST,
    max_tokens: int = 1024,
) -> Revised:
    """Answer, then criticise and revise for at most `rounds` rounds.

    Args:
        alpha: of every call; None for the backend's or server's default.
        max_tokens: of each answer and each critique.

    Raises:
        ProgramFailed: a call failed.
    """
    asked = {"question": question, "instruction": instruction, "alpha": alpha, "max_tokens": max_tokens}
    state = run(revise, backend, pictures=pictures, rounds=rounds, temperature=0, **asked)
    found = []
    for done in range(state.ret_value):
        verdict = checked(state)[f"verdict_{done}"]
        revision = generation(state, f"answer_{done + 1}") if verdict == WRONG else None
        found.append(Round(critique=generation(state, f"critique_{done}"), verdict=verdict, revision=revision))
    first = generation(state, "answer_0")
    last = next((one.revision for one in reversed(found) if one.revision), first)
    agreed = bool(found) and found[-1].verdict == CORRECT
    return Revised(question=question, first=first, rounds=found, answer=last.claim, agreed=agreed)


def show(revised: Revised) -> Group:
    parts: list[RenderableType] = [panel("answer", revised.first)]
    for number, one in enumerate(revised.rounds, 1):
        parts += [panel(f"critique {number}", one.critique), Text(f"verdict {number}: {one.verdict}", "bold")]
        if one.revision is not None:
            parts.append(panel(f"revision {number}", one.revision))
    end = "the critique agrees" if revised.agreed else "no critique agreed, and the last revision is unchecked"
    return Group(*parts, answer_line("answer", revised.answer), Text(f"rounds: {len(revised.rounds)}; {end}"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("verify_and_revise", __doc__)
    add_question(parser)
    add_alpha(parser)
    parser.add_argument("--rounds", type=positive, default=3, help="critiques at the most (%(default)s)")
    run_command(
        parser,
        arguments,
        lambda args, backend: verify_and_revise(
            backend, args.pictures, args.question, alpha=args.alpha, rounds=args.rounds, instruction=args.instruction,
            max_tokens=args.max_tokens,
        ),
        show,
    )  # fmt: skip


if __name__ == "__main__":
    main()
