"""Logsumexp, entropy and most likely id of each row of a step's logits; how far two models differ in it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from sgl_proxythinker.step.logits import ShardedLogits

# Rows are read in parts: each part has float32 temporaries of [rows, vocabulary], 10 MB each with 152,064 ids, so that
# what a step needs for it doesn't grow with the number of its rows.
ROWS_AT_ONCE = 16


class RowStatistics(NamedTuple):
    """Of softmax(logits) over the ids that the tokenizer knows, row by row."""

    logsumexp: torch.Tensor  # [R] float64: a logit less it would lose 1e-5 of its log probability in float32
    entropy: torch.Tensor  # [R] float32, nats
    top1: torch.Tensor  # [R] int64, the most likely id


def row_statistics(logits: ShardedLogits, index: torch.Tensor, vocab_size: int) -> RowStatistics:
    """Logsumexp, entropy and most likely id of some rows of a model's logits.

    Args:
        logits: read only.
        index: [R] int64, rows of `logits`.
        vocab_size: ids that the tokenizer knows; columns past them don't count.
    """
    parts = [_statistics(logits.rows(rows, vocab_size).float()) for rows in index.split(ROWS_AT_ONCE)]
    return RowStatistics(*(torch.cat(column) for column in zip(*parts, strict=True)))


def jensen_shannon(one: ShardedLogits, other: ShardedLogits, index: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """The Jensen-Shannon divergence of two models' distributions, row by row.

    Args:
        one, other: raw logits. Read only.
        index: [R] int64, rows of both.
        vocab_size: ids that the tokenizer knows.

    Returns:
        [R] float32 in nats, from 0 (equal) to log 2 (disjoint).
    """
    parts = index.split(ROWS_AT_ONCE)
    return torch.cat([_jensen_shannon(*(model.rows(rows, vocab_size) for model in (one, other))) for rows in parts])


def at_tokens(logits: ShardedLogits, index: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """[R] float32: the raw logit of one id in each row.

    Args:
        logits: read only.
        index: [R] int64, rows of `logits`.
        tokens: [R] int64, an id for each.
    """
    width = logits.shards.shape[-1]
    return logits.shards[tokens // width, index, tokens % width].float()


def _statistics(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    largest, top1 = rows.max(-1)
    logprobs = rows.log_softmax(-1)
    # The largest id's log probability is small, and so exact where both logits are not.
    logsumexp = largest.double() - logprobs.gather(1, top1[:, None])[:, 0].double()
    return logsumexp, torch.special.entr(logprobs.exp()).sum(-1), top1


def _jensen_shannon(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    one, other = one.float().log_softmax(-1), other.float().log_softmax(-1)
    middle = torch.logaddexp(one, other) - math.log(2)
    divergences = [(logprobs.exp() * (logprobs - middle)).sum(-1) for logprobs in (one, other)]
    # Of nearly equal distributions rounding makes it a hair negative.
    return (sum(divergences) / 2).clamp(min=0.0)
