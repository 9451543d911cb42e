"""The cut of implausible ids as one kernel on a GPU. Its specification is in `plausible`; nothing else imports this.

A program has a row to itself and reads it twice: for what is best, and to write what is not plausible beside it. The
second time it lies in the GPU's cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.step.sharded_load import as_arguments, load_columns

_BLOCK = 4096
_WARPS = 8


def cut_by_kernel(
    fused: torch.Tensor,
    rows: torch.Tensor,
    margins: torch.Tensor,
    base: ShardedLogits,
    logit_bias: torch.Tensor | None,
    vocab_size: int,
) -> None:
    """`plausible.cut_in_torch` for tensors of one CUDA device, on its current stream."""
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device_of(fused):
        _cut[(len(rows),)](
            fused,
            fused.stride(0),
            rows,
            margins,
            *as_arguments(base),
            logit_bias,
            0 if logit_bias is None else logit_bias.stride(0),
            VOCAB_SIZE=vocab_size,
            BLOCK=_BLOCK,
            num_warps=_WARPS,
        )


@triton.jit
def _likely(base, shard_stride, row_stride, SHARDS: tl.constexpr, WIDTH: tl.constexpr, biases, row, columns, is_known):
    """[BLOCK] float32: what the base says of these ids, with what requests add to them."""
    values = load_columns(base, shard_stride, row_stride, SHARDS, WIDTH, row, columns)
    if biases is not None:
        values += tl.load(biases + columns, mask=is_known, other=0.0).to(tl.float32)
    return values


@triton.jit(do_not_specialize_on_alignment=["rows", "margins"])
def _cut(
    fused,
    fused_row_stride,
    rows,
    margins,
    base,
    shard_stride,
    row_stride,
    SHARDS: tl.constexpr,
    WIDTH: tl.constexpr,
    bias,
    bias_row_stride,
    VOCAB_SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write -inf into row `rows[program_id(0)]` where the base is further below its best allowed id than the margin."""
    at = tl.program_id(0)
    row = tl.load(rows + at)
    row_of_fused, row_of_bias = fused + row * fused_row_stride, bias
    if bias is not None:
        row_of_bias = bias + row * bias_row_stride
    highest = tl.full([BLOCK], -float("inf"), tl.float32)
    is_number = tl.full([BLOCK], 1, tl.int32)
    for start in range(0, VOCAB_SIZE, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        is_known = columns < VOCAB_SIZE
        likely = _likely(base, shard_stride, row_stride, SHARDS, WIDTH, row_of_bias, row, columns, is_known)
        is_allowed = is_known & (tl.load(row_of_fused + columns, mask=is_known, other=-float("inf")) != -float("inf"))
        likely = tl.where(is_allowed, likely, -float("inf"))
        highest = tl.maximum(highest, likely)
        # A maximum passes over what is no number.
        is_number = tl.where(likely == likely, is_number, 0)
    least = tl.max(highest, 0) + tl.load(margins + at)
    # A row with one is left as it is: its request ends by the verdict.
    if tl.min(is_number, 0) == 1:
        for start in range(0, VOCAB_SIZE, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            is_known = columns < VOCAB_SIZE
            likely = _likely(base, shard_stride, row_stride, SHARDS, WIDTH, row_of_bias, row, columns, is_known)
            tl.store(row_of_fused + columns, -float("inf"), mask=is_known & (likely < least))
