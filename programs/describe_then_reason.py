"""Let the base describe the picture once, then reason under guidance about it, question after question.

    proxythinker describe-then-reason --image map.png --question "How far is A?" --question "Is B nearer?"

For several questions about one picture. The large base sees best, and an unguided description keeps its eyes clear of
the expert's; reasoning is guided and may lean on it. All turns are one conversation: the first question is read with
the picture and the description, which so far only the base has read, and each later one on top of what the prefix cache
holds of those before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import sglang as sgl
from PIL import Image
from rich.console import Group, RenderableType

from sgl_proxythinker import proxy_gen
from sgl_proxythinker.answers import THINK_FIRST, ask
from sgl_proxythinker.frontend.guided_backend import GuidedBackend
from sgl_proxythinker.programs.command_line import add_alpha, make_parser, run_command
from sgl_proxythinker.programs.generation import Generation, Result, generation, run, turn
from sgl_proxythinker.programs.terminal import answer_line, panel

DESCRIBE = (
    "Describe exactly what can be seen: every object with its place, colour and size, every number, label and line of "
    "text. Draw no conclusions."
)


class Reasoned(Result):
    question: str
    generation: Generation
    answer: str  # what it claims; empty if nothing


class Conversation(Result):
    description: Generation
    answers: list[Reasoned]  # in the order of the questions


@sgl.function
def converse(s, pictures, questions, alpha, max_tokens):
    s += sgl.user(turn(pictures, DESCRIBE))
    s += sgl.assistant(proxy_gen("description", alpha=0, max_tokens=max_tokens))
    for number, question in enumerate(questions):
        s += sgl.user(question)
        s += sgl.assistant(proxy_gen(f"answer_{number}", alpha=alpha, max_tokens=max_tokens))


def describe_then_reason(
    backend: GuidedBackend,
    pictures: Sequence[Image.Image],
    questions: Sequence[str],
    *,
    alpha: float | None = None,
    instruction: str = THINK_FIRST,
    max_tokens: int = 1024,
) -> Conversation:
    """One description, then each question in its turn.

    Args:
        pictures: one at least.
        alpha: of the reasoning; None for the backend's or server's default. The description is the base's.
        max_tokens: of the description and of each answer.

    Raises:
        ProgramFailed: a call failed.
        ValueError: no picture.
    """
    if not pictures:
        raise ValueError("there is nothing to describe: give a picture")
    asked = {"questions": [ask(question, instruction) for question in questions], "alpha": alpha}
    state = run(converse, backend, pictures=pictures, max_tokens=max_tokens, temperature=0, **asked)
    made = [generation(state, f"answer_{number}") for number in range(len(questions))]
    answers = [
        Reasoned(question=question, generation=one, answer=one.claim)
        for question, one in zip(questions, made, strict=True)
    ]
    return Conversation(description=generation(state, "description"), answers=answers)


def show(conversation: Conversation) -> Group:
    parts: list[RenderableType] = [panel("description", conversation.description)]
    for one in conversation.answers:
        parts += [panel(one.question, one.generation), answer_line("answer", one.answer)]
    return Group(*parts)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("describe_then_reason", __doc__)
    parser.add_argument(
        "--question", dest="questions", action="append", required=True, help="may be given several times"
    )
    add_alpha(parser)
    parser.set_defaults(needs_picture=True)
    run_command(
        parser,
        arguments,
        lambda args, backend: describe_then_reason(
            backend, args.pictures, args.questions, alpha=args.alpha, instruction=args.instruction,
            max_tokens=args.max_tokens,
        ),
        show,
    )  # fmt: skip


if __name__ == "__main__":
    main()
