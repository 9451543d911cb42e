"""The fields of a trace, and the object of lists that clients get."""

from __future__ import annotations

from collections.abc import Sequence

FIELDS = (
    "token_id",
    "base_logprob",
    "expert_logprob",
    "amateur_logprob",
    "fused_logprob",
    "base_top1_id",
    "flipped",
    "js_nats",
    "alpha",
    "base_entropy_nats",
    "base_amateur_js_nats",
)


def as_lists(entries: Sequence[tuple]) -> dict[str, list]:
    """One object of equally long lists, with an element per token, from tuples in the order of `FIELDS`."""
    columns = zip(*entries, strict=True) if entries else [()] * len(FIELDS)
    return {field: list(column) for field, column in zip(FIELDS, columns, strict=True)}
