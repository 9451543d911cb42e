"""What the ranges of fields depend on: the server's limits, its models and its tokenizer."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from sgl_proxythinker.limits import Limits
from sgl_proxythinker.server import request_limits
from sgl_proxythinker.vocabulary import known_ids

_CHARS_PER_TOKEN = 32  # more than any prompt has on average that still fits the context


class Bounds(NamedTuple):
    """Of one server, for all of its requests."""

    limits: Limits
    known_ids: int  # ids below this one mean a token to all three models
    context_length: int  # tokens
    has_priorities: bool = False  # requests are scheduled by a priority of their own

    @property
    def prompt_chars(self) -> int:
        return self.limits.max_prompt_chars or _CHARS_PER_TOKEN * self.context_length


@lru_cache(maxsize=1)
def bounds_of(manager: Any) -> Bounds:
    """The bounds of a server that is ours.

    Args:
        manager: SGLang's `TokenizerManager`.
    """
    server_args = manager.server_args
    return Bounds(
        request_limits(server_args), known_ids(manager.tokenizer), manager.context_len,
        server_args.enable_priority_scheduling,
    )  # fmt: skip
