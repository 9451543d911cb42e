"""What statistics say of each row of logits, and of two models in it."""

from __future__ import annotations

from typing import NamedTuple

import torch


class RowStatistics(NamedTuple):
    """Of softmax(logits) over the ids that the tokenizer knows, row by row."""

    logsumexp: torch.Tensor  # [R] float64: a logit less it would lose 1e-5 of its log probability in float32
    entropy: torch.Tensor  # [R] float32, nats
    top1: torch.Tensor  # [R] int64, the most likely id, the smallest of equals


class PairStatistics(NamedTuple):
    """Of two models, row by row."""

    one: RowStatistics
    other: RowStatistics
    js_nats: torch.Tensor  # [R] float32: their Jensen-Shannon divergence, from 0 (equal) to log 2 (disjoint)
