"""What `min_new_tokens` holds back: every id that ends an answer, also those of `generation_config.json`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def hold_back_every_end(params: Any, ends: Iterable[int] | None, head_rows: int) -> None:
    """Let a request that asks for a minimum of tokens name every id that would end it before.

    SGLang holds back the tokenizer's end and the request's own stop ids, and ends an answer at the model's too. Where
    a model has several, an answer could be shorter than was asked for.

    Args:
        params: SGLang's `SamplingParams`. Ids that are added to its stop ids end the answer as they did.
        ends: the model's ids; None: it has none.
        head_rows: of the base: ids from here on are never drawn.
    """
    if params.min_new_tokens and not params.ignore_eos and ends:
        ids = {end for end in ends if 0 <= end < head_rows}
        params.stop_token_ids = (params.stop_token_ids or set()) | ids or None
