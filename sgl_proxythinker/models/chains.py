"""A verify of a chain for attention that knows none."""

from __future__ import annotations

import copy

import torch

from sgl_proxythinker.upstream.runtime import ForwardBatch


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
