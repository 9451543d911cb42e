"""Think at length under guidance, then answer briefly and in a form that a machine can read.

    proxythinker think-then-answer --image chart.png --question "Which year was best?" --regex "[0-9]{4}"

For answers that go on into other software. The reasoning is where the expert helps, so it is guided; the answer only
writes down what the thought has found, so the base model does it, held to a regex or a JSON schema by the grammar.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from typing import Any

import sglang as sgl
from PIL import Image
from rich.console import Group

from sgl_proxythinker import proxy_gen
from sgl_proxythinker.answers import THINK_FIRST, ask
from sgl_proxythinker.frontend.guided_backend import GuidedBackend
from sgl_proxythinker.programs.command_line import add_alpha, add_question, make_parser, regex, run_command
from sgl_proxythinker.programs.generation import Generation, ProgramFailed, Result, generation, run, turn
from sgl_proxythinker.programs.terminal import answer_line, panel

SHORT = r"[^<>\n]{1,60}"
END = "</answer>"  # a part of the form: held to digits alone, a model that wants to write it would go on with digits
ANSWER_TOKENS = 256


class Answered(Result):
    question: str
    thought: Generation
    answer: Generation
    value: Any  # what the answer is: a text, or with a schema what its JSON holds


@sgl.function
def think_and_answer(s, pictures, question, alpha, max_tokens, form):
    s += sgl.user(turn(pictures, question))
    s += sgl.assistant_begin()
    s += proxy_gen("thought", alpha=alpha, max_tokens=max_tokens, stop=["</think>", "<answer>"])
    s += "</think><answer>"
    s += proxy_gen("answer", alpha=0, max_tokens=ANSWER_TOKENS, **form)
    s += sgl.assistant_end()


def think_then_answer(
    backend: GuidedBackend,
    pictures: Sequence[Image.Image],
    question: str,
    *,
    alpha: float | None = None,
    regex: str | None = None,
    json_schema: dict | None = None,
    instruction: str = THINK_FIRST,
    max_tokens: int = 1024,
) -> Answered:
    """Think guided, then answer with the base model in the form that is asked for.

    Args:
        alpha: of the thought; None for the backend's or server's default.
        regex, json_schema: the answer's form, at most one of them; without either, a line of at most 60 characters.
        max_tokens: of the thought. The answer may take 256.

    Raises:
        ProgramFailed: a call failed, or the answer was cut off before it had its form.
        ValueError: both forms at once.
    """
    if regex is not None and json_schema is not None:
        raise ValueError("an answer has one form: give regex or json_schema, not both")
    form = (
        {"regex": f"({_unanchored(regex or SHORT)}){END}"}
        if json_schema is None
        else {"json_schema": json.dumps(json_schema)}
    )
    asked = {"question": ask(question, instruction), "alpha": alpha, "max_tokens": max_tokens, "form": form}
    state = run(think_and_answer, backend, pictures=pictures, temperature=0, **asked)
    answer = generation(state, "answer")
    value = _read(answer.text, form)
    return Answered(question=question, thought=generation(state, "thought"), answer=answer, value=value)


def _unanchored(regex: str) -> str:
    """Without `^` and `$` around it: the form is of the whole answer, and grammars refuse them or pass over them."""
    regex = regex.removeprefix("^")
    return regex[:-1] if re.search(r"(?<!\\)(\\\\)*\$\Z", regex) else regex


def _read(text: str, form: dict[str, str]) -> Any:
    if "regex" in form:
        if re.fullmatch(form["regex"], text):
            return text.removesuffix(END)
    else:
        try:
            return json.loads(text)
        except ValueError:
            pass
    raise ProgramFailed(f"the answer was cut off at {ANSWER_TOKENS} tokens, before it had the form asked for: {text!r}")


def schema(text: str) -> dict:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"no JSON: {error}") from error
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError("a JSON schema is an object, as {'type': 'integer'}")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("think_then_answer", __doc__)
    add_question(parser)
    add_alpha(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--regex", type=regex, help=f"that the whole answer matches (default: {SHORT!r})")
    form.add_argument("--json-schema", type=schema, help="of the answer, as JSON")
    run_command(
        parser,
        arguments,
        lambda args, backend: think_then_answer(
            backend, args.pictures, args.question, alpha=args.alpha, regex=args.regex, json_schema=args.json_schema,
            instruction=args.instruction, max_tokens=args.max_tokens,
        ),
        lambda done: Group(
            panel("thought", done.thought), panel("answer", done.answer), answer_line("answer", str(done.value))
        ),
    )  # fmt: skip


if __name__ == "__main__":
    main()
