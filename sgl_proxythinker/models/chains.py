"""A verify of a chain as other steps: for attention that knows none, and for a model that reads it token by token."""

from __future__ import annotations

import copy

import torch

from sgl_proxythinker.upstream.runtime import ForwardBatch
from sgl_proxythinker.upstream.speculation import ForwardMode


def as_extend(batch: ForwardBatch) -> ForwardBatch:
    """A verify of n tokens a request as SGLang's attention on a CPU reads it: an extend of n tokens each.

    Everything else (positions, logits of all rows) stays that of the verify. Nothing of `batch` is changed.
    """
    each = len(batch.input_ids) // batch.batch_size
    view = copy.copy(batch)
    view.extend_prefix_lens = batch.seq_lens.int()
    view.extend_seq_lens = torch.full_like(batch.seq_lens, each, dtype=torch.int32)
    view.extend_seq_lens_cpu = [each] * batch.batch_size
    view.seq_lens = batch.seq_lens + each
    view.seq_lens_cpu = batch.seq_lens_cpu + each
    view.seq_lens_sum = int(view.seq_lens_cpu.sum())
    return view


def as_decode(batch: ForwardBatch, tokens: torch.Tensor, each: int, offset: int) -> ForwardBatch:
    """The decode step that reads one token of every chain of a verify. Nothing of `batch` is changed.

    Args:
        batch: the verify of B requests, with `each` tokens each.
        tokens: [B] int64, what is read.
        each: tokens of a chain.
        offset: which of them.
    """
    view = copy.copy(batch)
    view.forward_mode = ForwardMode.DECODE
    # A decode step with a `spec_info` would be one of SGLang's drafts, whose lengths are counted otherwise.
    view.spec_info = None
    view.input_ids = tokens
    view.num_token_non_padded_cpu = batch.batch_size
    view.positions = batch.positions[offset::each].contiguous()
    view.out_cache_loc = batch.out_cache_loc[offset::each].contiguous()
    if batch.mrope_positions is not None:
        view.mrope_positions = batch.mrope_positions[:, offset::each].contiguous()
    view.seq_lens = batch.seq_lens + (offset + 1)
    if batch.seq_lens_cpu is not None:
        view.seq_lens_cpu = batch.seq_lens_cpu + (offset + 1)
        view.seq_lens_sum = int(view.seq_lens_cpu.sum())
    return view
