"""How many columns of the logits mean a token."""

from __future__ import annotations

from typing import Any


def known_ids(tokenizer: Any) -> int:
    """The largest id of a tokenizer plus one: columns of the logits past it are lm_head padding."""
    return max(tokenizer.get_vocab().values()) + 1
