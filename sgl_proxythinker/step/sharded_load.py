"""Sharded logits as arguments of a kernel, and their columns in it. Needs triton: only kernels import it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sgl_proxythinker.step.logits import ShardedLogits


def as_arguments(logits: ShardedLogits | None) -> tuple[torch.Tensor | None, int, int, int, int]:
    """Pointer, stride from shard to shard and from row to row, number of shards, their width."""
    if logits is None:
        return None, 0, 0, 0, 0
    shards, _, width = logits.shards.shape
    shard_stride, row_stride, _ = logits.shards.stride()
    # Where nothing lies a stride away it says nothing, yet another value could mean another compilation.
    return logits.shards, shard_stride if shards > 1 else 0, row_stride, shards, width


@triton.jit
def load_columns(logits, shard_stride, row_stride, SHARDS: tl.constexpr, WIDTH: tl.constexpr, row, columns):
    """[BLOCK] float32: what a model says in `row` (int64) about the ids `columns`; undefined past its last column."""
    places = row * row_stride + (columns // WIDTH).to(tl.int64) * shard_stride + columns % WIDTH
    # The padding is read too, for the caller to discard: a mask that ends at an odd vocabulary size would make every
    # load of the row one element wide.
    return tl.load(logits + places, mask=columns < SHARDS * WIDTH).to(tl.float32)


@triton.jit
def load_known(logits, shard_stride, row_stride, SHARDS: tl.constexpr, WIDTH: tl.constexpr, row, columns, VOCAB_SIZE):
    """[BLOCK] float32: what a model says in `row` about the ids `columns`, -inf past the vocabulary."""
    values = load_columns(logits, shard_stride, row_stride, SHARDS, WIDTH, row, columns)
    return tl.where(columns < VOCAB_SIZE, values, -float("inf"))
