"""Logits as models give them, and the rows that come of them."""

from __future__ import annotations

from typing import NamedTuple

import torch


class ShardedLogits(NamedTuple):
    """Logits whose columns lie in equally wide shards, as ranks of a tensor-parallel group hold and send them."""

    # [S, R, W], any float dtype: shard s of row r holds the logits of ids s*W to (s+1)*W - 1. May be strided in S and
    # R; the last dimension is contiguous.
    shards: torch.Tensor

    @classmethod
    def whole(cls, logits: torch.Tensor) -> ShardedLogits:
        """A view of `logits` [R, V] as one shard."""
        return cls(logits[None])

    def rows(self, index: torch.Tensor, vocab_size: int) -> torch.Tensor:
        """Gather whole rows.

        Args:
            index: [n] int64, each from 0 to R - 1.
            vocab_size: ids that the tokenizer knows, at most S*W. Columns past it are lm_head padding.

        Returns:
            [n, vocab_size], the dtype of the shards, a copy.
        """
        return self.shards[:, index].transpose(0, 1).flatten(1)[:, :vocab_size]


class FusedLogits(NamedTuple):
    """The rows to sample from."""

    logits: torch.Tensor  # [B, width] float32; columns past the vocabulary are -inf
    sound: torch.Tensor  # [B] bool, False where the fused row was NaN or infinite and is 0.0 now


class WeightedPair(NamedTuple):
    """Two models whose difference steers rows, and by how much each of N rows."""

    plus: ShardedLogits
    minus: ShardedLogits
    # [2, N] float32, of plus and of minus. A row with both 0 is not steered by this pair, whatever its models say.
    weights: torch.Tensor
    # [N] int64, the row of a model that belongs to each of the N; -1 where it did not run for it, which the pair does
    # not steer then. None: row n is row n.
    plus_rows: torch.Tensor | None = None
    minus_rows: torch.Tensor | None = None
    # [N] float32: plus - minus is cut to [-clip, clip] before it is weighted; infinity where it isn't. None: nowhere.
    clips: torch.Tensor | None = None
