"""The formula as one pass on a GPU. `fusion.fuse_in_torch` is its specification; nothing else imports this module.

Each program reads a block of columns of one row of the base and of a pair once and writes the fused block once. Memory
bounds it: 16 bytes and a handful of additions per id in float32. A second pair is a second pass over the fused rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from sgl_proxythinker.step.logits import FusedLogits, ShardedLogits, WeightedPair
from sgl_proxythinker.step.sharded_load import as_arguments, load_columns

# One row of 152,064 columns is 149 blocks for the 132 multiprocessors of an H100 or H200. Eight columns a thread: two
# loads of 16 bytes from float32 rows, one from rows of 16 bits.
_BLOCK = 1024
_WARPS = 4


def fuse_by_kernel(
    base: ShardedLogits, pairs: Sequence[WeightedPair], batch: int, vocab_size: int, width: int
) -> FusedLogits:
    """`fusion.fuse_logits` for tensors of one CUDA device, on its current stream; arguments are checked there."""
    fused = torch.empty(batch, width, dtype=torch.float32, device=base.shards.device)
    sound = torch.ones(batch, dtype=torch.bool, device=base.shards.device)
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device_of(fused):
        # A pass over what an earlier one wrote reads and writes each element in the same program. What is not finite
        # stays so whatever is added, so that every pass may report it.
        known = base
        passes: list[WeightedPair | None] = [*pairs] or [None]
        for pair in passes:
            _fuse[triton.cdiv(width, _BLOCK), batch](
                fused,
                sound,
                None if pair is None else pair.weights.contiguous(),
                *(
                    (None, None, None)
                    if pair is None
                    else map(_contiguous, (pair.plus_rows, pair.minus_rows, pair.clips))
                ),
                *as_arguments(known),
                *as_arguments(None if pair is None else pair.plus),
                *as_arguments(None if pair is None else pair.minus),
                VOCAB_SIZE=vocab_size,
                WIDTH=width,
                BLOCK=_BLOCK,
                num_warps=_WARPS,
            )
            known = ShardedLogits.whole(fused)
        _neutralize[(batch,)](fused, sound, VOCAB_SIZE=vocab_size, WIDTH=width, BLOCK=_BLOCK, num_warps=_WARPS)
    return FusedLogits(fused, sound)


def _contiguous(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.contiguous()


# The widths are a deployment's own and compiled in, for divisions by them to be multiplications. Rows of a batch's
# weights start anywhere, and are read one element at a time.
@triton.jit(do_not_specialize_on_alignment=["sound", "weights", "plus_rows", "minus_rows", "clips"])
def _fuse(
    fused,
    sound,
    weights,
    plus_rows,
    minus_rows,
    clips,
    base,
    base_shard_stride,
    base_row_stride,
    BASE_SHARDS: tl.constexpr,
    BASE_WIDTH: tl.constexpr,
    plus,
    plus_shard_stride,
    plus_row_stride,
    PLUS_SHARDS: tl.constexpr,
    PLUS_WIDTH: tl.constexpr,
    minus,
    minus_shard_stride,
    minus_row_stride,
    MINUS_SHARDS: tl.constexpr,
    MINUS_WIDTH: tl.constexpr,
    VOCAB_SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write columns program_id(0) * BLOCK and on of row program_id(1), and clear its `sound` if one is not finite."""
    # B * WIDTH and the strides may exceed 31 bits.
    row = tl.program_id(1).to(tl.int64)
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = load_columns(base, base_shard_stride, base_row_stride, BASE_SHARDS, BASE_WIDTH, row, columns)
    if plus is not None:
        plus_weight = tl.load(weights + row)
        minus_weight = tl.load(weights + tl.num_programs(1) + row)
        if plus_rows is None:
            plus_row = row
        else:
            plus_row = tl.load(plus_rows + row)
        if minus_rows is None:
            minus_row = row
        else:
            minus_row = tl.load(minus_rows + row)
        # A branch, not a weight of 0: a row that is the base's alone neither waits for the pair nor takes its NaN.
        if (plus_row >= 0) & (minus_row >= 0) & ((plus_weight != 0) | (minus_weight != 0)):
            says_plus = load_columns(
                plus, plus_shard_stride, plus_row_stride, PLUS_SHARDS, PLUS_WIDTH, plus_row, columns
            )
            says_minus = load_columns(
                minus, minus_shard_stride, minus_row_stride, MINUS_SHARDS, MINUS_WIDTH, minus_row, columns
            )
            difference = says_plus - says_minus
            if clips is not None:
                # NaN and infinity stay what they are.
                clip = tl.load(clips + row)
                is_finite = tl.abs(difference) < float("inf")
                cut = tl.where(difference > clip, clip, tl.where(difference < -clip, -clip, difference))
                difference = tl.where(is_finite, cut, difference)
            values += difference * plus_weight
            if plus_weight != minus_weight:
                values += says_minus * (plus_weight - minus_weight)
    is_known = columns < VOCAB_SIZE
    tl.store(fused + row * WIDTH + columns, tl.where(is_known, values, -float("inf")), mask=columns < WIDTH)
    # Any number of programs may store the same False: no atomic is needed, and a sound row stores nothing.
    is_broken = is_known & ~(tl.abs(values) < float("inf"))
    tl.store(tl.broadcast_to(sound + row, [BLOCK]), False, mask=is_broken)


@triton.jit(do_not_specialize_on_alignment=["sound"])
def _neutralize(fused, sound, VOCAB_SIZE: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Set the known columns of row program_id(0) to 0 unless it is sound. After `_fuse`, whose blocks don't wait."""
    row = tl.program_id(0).to(tl.int64)
    if tl.load(sound + row) == 0:
        for start in range(0, VOCAB_SIZE, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            tl.store(fused + row * WIDTH + columns, 0.0, mask=columns < VOCAB_SIZE)
