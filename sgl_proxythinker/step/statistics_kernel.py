"""A row's statistics as one kernel on a GPU. Its specification is in `statistics`; beside that one
only `law_strengths_kernel` imports this module.

A program reads its row three times at most: for the largest logit, for the sums, and with two models for their
divergence. What comes after the first time lies in the GPU's cache: a row of 152,064 ids has 0.6 MB.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.step.row_statistics import PairStatistics, RowStatistics
from sgl_proxythinker.step.sharded_load import as_arguments, load_known

# A program has a row to itself, and few rows ask: many columns at a time for each.
_BLOCK = 4096
_WARPS = 8


def row_statistics_by_kernel(logits: ShardedLogits, rows: torch.Tensor, vocab_size: int) -> RowStatistics:
    """`statistics.row_statistics` for tensors of one CUDA device, on its current stream."""
    return _run(logits, rows, None, None, vocab_size)[0]


def pair_statistics_by_kernel(
    one: ShardedLogits, one_rows: torch.Tensor, other: ShardedLogits, other_rows: torch.Tensor, vocab_size: int
) -> PairStatistics:
    """`statistics.row_statistics_of_pair` for tensors of one CUDA device, on its current stream."""
    of_one, of_other, js_nats = _run(one, one_rows, other, other_rows, vocab_size)
    return PairStatistics(of_one, of_other, js_nats)


def _run(
    one: ShardedLogits,
    one_rows: torch.Tensor,
    other: ShardedLogits | None,
    other_rows: torch.Tensor | None,
    vocab_size: int,
) -> tuple[RowStatistics, RowStatistics, torch.Tensor]:
    count, device = len(one_rows), one.shards.device
    of_one, of_other = (
        RowStatistics(
            torch.empty(count, dtype=torch.float64, device=device),
            torch.empty(count, dtype=torch.float32, device=device),
            torch.empty(count, dtype=torch.int64, device=device),
        )
        for _ in range(2)
    )
    js_nats = torch.empty(count, dtype=torch.float32, device=device)
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device_of(js_nats):
        _row_statistics[(count,)](
            *of_one,
            *of_other,
            js_nats,
            one_rows.contiguous(),
            None if other_rows is None else other_rows.contiguous(),
            *as_arguments(one),
            *as_arguments(other),
            VOCAB_SIZE=vocab_size,
            BLOCK=_BLOCK,
            num_warps=_WARPS,
        )
    return of_one, of_other, js_nats


@triton.jit
def jensen_shannon_terms(of_one, of_other):
    """What each id adds to twice the divergence of two distributions, of its log probability under both."""
    higher, lower = tl.maximum(of_one, of_other), tl.minimum(of_one, of_other)
    # log((p + q) / 2); where both are 0 nothing is added.
    middle = higher + tl.log(1 + tl.exp(lower - higher)) - 0.6931471805599453
    p, q = tl.exp(of_one), tl.exp(of_other)
    return tl.where(p == 0, 0.0, p * (of_one - middle)) + tl.where(q == 0, 0.0, q * (of_other - middle))


@triton.jit
def _of_row(
    logsumexps,
    entropies,
    top1s,
    at,
    logits,
    shard_stride,
    row_stride,
    SHARDS: tl.constexpr,
    WIDTH: tl.constexpr,
    row,
    VOCAB_SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write one model's statistics of one row to place `at`. Returns its largest logit and log(sum of exp(x - it))."""
    highest = tl.full([BLOCK], -float("inf"), tl.float32)
    where = tl.full([BLOCK], VOCAB_SIZE, tl.int32)
    for start in range(0, VOCAB_SIZE, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        values = load_known(logits, shard_stride, row_stride, SHARDS, WIDTH, row, columns, VOCAB_SIZE)
        is_higher = values > highest
        where = tl.where(is_higher, columns, where)
        highest = tl.where(is_higher, values, highest)
    largest = tl.max(highest, 0)
    top1 = tl.min(tl.where(highest == largest, where, VOCAB_SIZE), 0)
    masses = tl.zeros([BLOCK], tl.float32)
    moments = tl.zeros([BLOCK], tl.float32)
    for start in range(0, VOCAB_SIZE, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        values = load_known(logits, shard_stride, row_stride, SHARDS, WIDTH, row, columns, VOCAB_SIZE) - largest
        mass = tl.exp(values)
        masses += mass
        # Not -inf * 0.
        moments += tl.where(mass == 0, 0.0, mass * values)
    mass = tl.sum(masses, 0)
    log_mass = tl.log(mass)
    tl.store(logsumexps + at, largest.to(tl.float64) + log_mass.to(tl.float64))
    tl.store(entropies + at, log_mass - tl.sum(moments, 0) / mass)
    tl.store(top1s + at, top1.to(tl.int64))
    return largest, log_mass


@triton.jit(do_not_specialize_on_alignment=["one_rows", "other_rows"])
def _row_statistics(
    one_logsumexps,
    one_entropies,
    one_top1s,
    other_logsumexps,
    other_entropies,
    other_top1s,
    js_nats,
    one_rows,
    other_rows,
    one,
    one_shard_stride,
    one_row_stride,
    ONE_SHARDS: tl.constexpr,
    ONE_WIDTH: tl.constexpr,
    other,
    other_shard_stride,
    other_row_stride,
    OTHER_SHARDS: tl.constexpr,
    OTHER_WIDTH: tl.constexpr,
    VOCAB_SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The statistics of row program_id(0) of one model, or of two and what lies between them."""
    at = tl.program_id(0)
    one_row = tl.load(one_rows + at)
    one_largest, one_log_mass = _of_row(
        one_logsumexps, one_entropies, one_top1s, at,
        one, one_shard_stride, one_row_stride, ONE_SHARDS, ONE_WIDTH, one_row, VOCAB_SIZE, BLOCK,
    )  # fmt: skip
    if other is not None:
        other_row = tl.load(other_rows + at)
        other_largest, other_log_mass = _of_row(
            other_logsumexps, other_entropies, other_top1s, at,
            other, other_shard_stride, other_row_stride, OTHER_SHARDS, OTHER_WIDTH, other_row, VOCAB_SIZE, BLOCK,
        )  # fmt: skip
        sums = tl.zeros([BLOCK], tl.float32)
        for start in range(0, VOCAB_SIZE, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            of_one = load_known(
                one, one_shard_stride, one_row_stride, ONE_SHARDS, ONE_WIDTH, one_row, columns, VOCAB_SIZE
            )
            of_other = load_known(
                other, other_shard_stride, other_row_stride, OTHER_SHARDS, OTHER_WIDTH, other_row, columns, VOCAB_SIZE
            )
            sums += jensen_shannon_terms(of_one - one_largest - one_log_mass, of_other - other_largest - other_log_mass)
        # Of nearly equal distributions rounding makes it a hair negative.
        divergence = tl.sum(sums, 0) / 2
        tl.store(js_nats + at, tl.where(divergence < 0, 0.0, divergence))
