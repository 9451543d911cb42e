"""The formula as one pass on a GPU. `fusion.fuse_in_torch` is its specification; nothing else imports this module.

Each program reads a block of columns of one row of the three models once and writes the fused block once. Memory
bounds it: 16 bytes and a handful of additions per id in float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sgl_proxythinker.step.logits import FusedLogits, ShardedLogits

# One row of 152,064 columns is 149 blocks for the 132 multiprocessors of an H100 or H200. Eight columns a thread: two
# loads of 16 bytes from float32 rows, one from rows of 16 bits.
_BLOCK = 1024
_WARPS = 4


def fuse_by_kernel(
    base: ShardedLogits,
    expert: ShardedLogits | None,
    amateur: ShardedLogits | None,
    expert_weight: torch.Tensor,
    amateur_weight: torch.Tensor,
    proxy_rows: torch.Tensor | None,
    vocab_size: int,
    width: int,
) -> FusedLogits:
    """`fusion.fuse_logits` for tensors of one CUDA device, on its current stream; arguments are checked there."""
    batch = len(expert_weight)
    fused = torch.empty(batch, width, dtype=torch.float32, device=base.shards.device)
    sound = torch.ones(batch, dtype=torch.bool, device=base.shards.device)
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device_of(fused):
        _fuse[triton.cdiv(width, _BLOCK), batch](
            fused,
            sound,
            expert_weight.contiguous(),
            amateur_weight.contiguous(),
            None if proxy_rows is None else proxy_rows.contiguous(),
            *_as_arguments(base),
            *_as_arguments(expert),
            *_as_arguments(amateur),
            VOCAB_SIZE=vocab_size,
            WIDTH=width,
            BLOCK=_BLOCK,
            num_warps=_WARPS,
        )
        _neutralize[(batch,)](fused, sound, VOCAB_SIZE=vocab_size, WIDTH=width, BLOCK=_BLOCK, num_warps=_WARPS)
    return FusedLogits(fused, sound)


def _as_arguments(logits: ShardedLogits | None) -> tuple[torch.Tensor | None, int, int, int, int]:
    """Pointer, stride from shard to shard and from row to row, number of shards, their width."""
    if logits is None:
        return None, 0, 0, 0, 0
    shards, _, width = logits.shards.shape
    shard_stride, row_stride, _ = logits.shards.stride()
    # Where nothing lies a stride away it says nothing, yet another value could mean another compilation.
    return logits.shards, shard_stride if shards > 1 else 0, row_stride, shards, width


@triton.jit
def _load(logits, shard_stride, row_stride, SHARDS: tl.constexpr, WIDTH: tl.constexpr, row, columns):
    """[BLOCK] float32: what a model says in `row` (int64) about the ids `columns`; undefined past its last column."""
    places = row * row_stride + (columns // WIDTH).to(tl.int64) * shard_stride + columns % WIDTH
    # The padding is read too, for the caller to discard: a mask that ends at an odd vocabulary size would make every
    # load of the row one element wide.
    return tl.load(logits + places, mask=columns < SHARDS * WIDTH).to(tl.float32)


# The widths are a deployment's own and compiled in, for divisions by them to be multiplications. Rows of a batch's
# weights start anywhere, and are read one element at a time.
@triton.jit(do_not_specialize_on_alignment=["sound", "expert_weights", "amateur_weights", "proxy_rows"])
def _fuse(
    fused,
    sound,
    expert_weights,
    amateur_weights,
    proxy_rows,
    base,
    base_shard_stride,
    base_row_stride,
    BASE_SHARDS: tl.constexpr,
    BASE_WIDTH: tl.constexpr,
    expert,
    expert_shard_stride,
    expert_row_stride,
    EXPERT_SHARDS: tl.constexpr,
    EXPERT_WIDTH: tl.constexpr,
    amateur,
    amateur_shard_stride,
    amateur_row_stride,
    AMATEUR_SHARDS: tl.constexpr,
    AMATEUR_WIDTH: tl.constexpr,
    VOCAB_SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write columns program_id(0) * BLOCK and on of row program_id(1), and clear its `sound` if one is not finite."""
    # B * WIDTH and the strides may exceed 31 bits.
    row = tl.program_id(1).to(tl.int64)
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = _load(base, base_shard_stride, base_row_stride, BASE_SHARDS, BASE_WIDTH, row, columns)
    if expert is not None:
        expert_weight = tl.load(expert_weights + row)
        amateur_weight = tl.load(amateur_weights + row)
        if proxy_rows is None:
            proxy_row = row
        else:
            proxy_row = tl.load(proxy_rows + row)
        # A branch, not a weight of 0: a row that is the base's alone neither waits for the proxies nor takes their NaN.
        if (proxy_row >= 0) & ((expert_weight != 0) | (amateur_weight != 0)):
            says_expert = _load(
                expert, expert_shard_stride, expert_row_stride, EXPERT_SHARDS, EXPERT_WIDTH, proxy_row, columns
            )
            says_amateur = _load(
                amateur, amateur_shard_stride, amateur_row_stride, AMATEUR_SHARDS, AMATEUR_WIDTH, proxy_row, columns
            )
            values += (says_expert - says_amateur) * expert_weight
            if expert_weight != amateur_weight:
                values += says_amateur * (expert_weight - amateur_weight)
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
