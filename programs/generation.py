"""What every program here needs of SGLang's programs: turns with pictures, runs that fail aloud, typed generations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sglang as sgl
from PIL import Image
from pydantic import BaseModel, ConfigDict
from sglang.lang.interpreter import ProgramState, ProgramStateGroup

from sgl_proxythinker.answers import final_answer
from sgl_proxythinker.frontend.guided_backend import GuidedBackend, UnknownVariable
from sgl_proxythinker.guidance import ALPHA


class ProgramFailed(RuntimeError):
    """A program could not be finished. The message is a sentence that says why."""


class Result(BaseModel):
    """Of a program: typed, immutable, and the whole of what `--json` prints."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Generation(Result):
    """One call of `proxy_gen` and what the server says of it."""

    text: str
    alpha: float | None  # that was in force; None: a law said it at every token
    prompt_tokens: int  # pictures included
    cached_tokens: int  # of the prompt, read from the prefix cache
    completion_tokens: int
    seconds: float  # at the server, from the request's arrival to the last token
    cut_off: bool  # by max_tokens

    @property
    def claim(self) -> str:
        """The final answer that the text gives; empty if it gives none."""
        return final_answer(self.text, self.cut_off)


def turn(pictures: Sequence[Image.Image], text: str) -> Any:
    """The content of a turn: pictures in their order, then text."""
    content = text
    for picture in reversed(pictures):
        content = sgl.image(picture) + content
    return content


def run(program: sgl.SglFunction, backend: GuidedBackend, **arguments: Any) -> ProgramState:
    """Run a program to its end. `arguments` are the program's, and those of `.run`, as `temperature`.

    Raises:
        ProgramFailed: something of it failed.
    """
    try:
        return checked(program.run(backend=backend, **arguments))
    except UnknownVariable as error:  # it read what could not be generated
        raise ProgramFailed(str(error)) from error


def run_batch(
    program: sgl.SglFunction, backend: GuidedBackend, each: list[dict[str, Any]], **arguments: Any
) -> list[ProgramState]:
    """Run a program on several sets of its arguments at once; `arguments` are those of `.run_batch`.

    Raises:
        ProgramFailed: something of one of them failed.
    """
    return [checked(state) for state in program.run_batch(each, backend=backend, **arguments)]


def checked(state: ProgramState) -> ProgramState:
    """The state of a program once everything that was submitted so far is done.

    Raises:
        ProgramFailed: something of it failed.
    """
    if (error := state.error()) is not None:
        raise ProgramFailed(str(error)) from error
    return state


def fork(state: ProgramState, size: int) -> ProgramStateGroup:
    """`state.fork`, with what stands there already computed once, before the branches begin.

    Raises:
        ProgramFailed: the program failed so far. SGLang's branches would run on, without what could not be added.
    """
    # Waited for first: SGLang (0.5.17) asks whether there is any text to compute before its thread has written it, and
    # where there seems to be none, each branch computes all of it.
    checked(state)
    branches = state.fork(size)
    checked(state)
    return branches


def generation(state: ProgramState, name: str) -> Generation:
    """The variable `name` of a program that ran.

    Raises:
        ProgramFailed: something of it failed.
    """
    text, meta = checked(state)[name], state.get_meta_info(name)
    return Generation(
        text=text,
        alpha=meta[ALPHA],
        prompt_tokens=meta["prompt_tokens"],
        cached_tokens=meta["cached_tokens"],
        completion_tokens=meta["completion_tokens"],
        seconds=meta["e2e_latency"],
        cut_off=meta["finish_reason"]["type"] == "length",
    )
