"""The HTTP request that is being answered, as far as guidance is concerned: what its body said, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from sgl_proxythinker.guidance import Guidance
from sgl_proxythinker.requests.model_name import ModelName


@dataclass
class HttpCall:
    """Filled while a request is read, and read when its answer begins. Tasks that a handler starts see the same one."""

    path: str
    model: ModelName = ModelName()  # what the model's name says
    custom_params: dict[str, Any] | None = None  # of a body whose route has no place of SGLang's for them
    speaks_openai: bool = False  # an answer in OpenAI's form, or in one that is made of it
    names: Mapping[str, str] = field(default_factory=dict)  # what its body calls fields of SGLang's
    guidance: list[Guidance] = field(default_factory=list)  # of each prompt, in the order of the body
    is_read: bool = False  # SGLang has made a request of the body
    refusal: str | None = None  # why its messages can't be rendered, where SGLang's handler makes a 500 of that
    refused_for: str | None = None  # why it is refused, in a word of `metrics.refusals`
    is_gone: bool = False  # its client has closed the connection
    answer_id: str | None = None  # what all parts of an answer in OpenAI's form carry


_current: ContextVar[HttpCall | None] = ContextVar("proxythinker_call", default=None)


def begin(path: str) -> HttpCall:
    """Start answering a request; what is awaited and what is started from here on finds it with `current`."""
    call = HttpCall(path)
    _current.set(call)
    return call


def current() -> HttpCall | None:
    """The request that is being answered; None in the offline engine."""
    return _current.get()
