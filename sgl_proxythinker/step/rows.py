"""Which requests of a batch a small model runs for, and the batch that holds only those.

A request that not all models read has its prefix in another part of the radix tree, so that every part says who has
read all of it (`guidance.Guidance.tree_key`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from sgl_proxythinker.step.batch_fields import Owner, owned_by

if TYPE_CHECKING:
    from sgl_proxythinker.upstream.runtime import ForwardBatch


@dataclass(frozen=True, slots=True, eq=False)
class SelectedRequests:
    """The requests of a batch that a model runs for, K of B. Two are the same where they are one object."""

    index: list[int]  # [K]
    on_device: torch.Tensor  # [K] int64
    rows: list[int]  # [N]: the row of this model's logits that belongs to each of the base's, -1 where it has none
    rows_on_device: torch.Tensor  # [N] int64

    @classmethod
    def of(cls, needed: Sequence[bool], device: str, each: int = 1) -> SelectedRequests:
        """From each request's need of the model. `each`: rows of logits of a request, which lie side by side."""
        index = [request for request, is_needed in enumerate(needed) if is_needed]
        rows = [-1] * len(needed) * each
        for place, request in enumerate(index):
            rows[request * each : (request + 1) * each] = range(place * each, (place + 1) * each)
        return cls(index, to_device(index, torch.int64, device), rows, to_device(rows, torch.int64, device))

    def __len__(self) -> int:
        return len(self.index)


def to_device(values: Any, dtype: torch.dtype, device: str | torch.device) -> torch.Tensor:
    """Copy to the model's device without waiting for it."""
    pin = torch.device(device).type == "cuda"
    return torch.tensor(values, dtype=dtype, pin_memory=pin).to(device, non_blocking=True)


def select_rows(batch: ForwardBatch, rows: SelectedRequests) -> ForwardBatch:
    """A batch with only these requests, in the same order. Nothing of `batch` is changed.

    Args:
        batch: one that can be divided (`batch_fields.undividable`).
        rows: which of its requests.
    """
    view = copy.copy(batch)
    tokens = rows.on_device
    if batch.extend_seq_lens_cpu is not None:
        tokens = _tokens_of(batch.extend_seq_lens_cpu, rows)
    elif batch.spec_info is not None:
        tokens = _tokens_of([len(batch.input_ids) // batch.batch_size] * batch.batch_size, rows)
    for name in owned_by(Owner.ROW):
        if (values := getattr(batch, name)) is not None:
            setattr(view, name, values[rows.on_device])
    for name in owned_by(Owner.TOKEN):
        if (values := getattr(batch, name)) is not None:
            setattr(view, name, values[..., tokens])
    for name in owned_by(Owner.ROW_LIST):
        if (values := getattr(batch, name)) is not None:
            setattr(view, name, [values[row] for row in rows.index])
    if (chain := batch.spec_info) is not None:
        view.spec_info = replace(chain, draft_token=chain.draft_token[tokens], positions=chain.positions[tokens])
    _derive(view, batch, rows)
    return view


def _derive(view: ForwardBatch, batch: ForwardBatch, rows: SelectedRequests) -> None:
    """The fields of `view` that follow from its others: lengths, sums and starts."""
    view.batch_size = len(rows.index)
    if batch.seq_lens_cpu is not None:
        view.seq_lens_cpu = batch.seq_lens_cpu[rows.index]
        view.seq_lens_sum = int(view.seq_lens_cpu.sum())
    if batch.extend_seq_lens is not None:
        lengths = view.extend_seq_lens
        view.extend_start_loc = (lengths.cumsum(0) - lengths).to(batch.extend_start_loc.dtype)
        view.extend_num_tokens = sum(view.extend_seq_lens_cpu)
    view.num_token_non_padded_cpu = len(view.input_ids)
    if batch.num_token_non_padded is not None:
        view.num_token_non_padded = to_device(
            len(view.input_ids), batch.num_token_non_padded.dtype, batch.num_token_non_padded.device
        )


def _tokens_of(lengths: list[int], rows: SelectedRequests) -> torch.Tensor:
    """[tokens] int64 on the device: where the tokens of these requests are, of requests with so many each."""
    ends = torch.tensor(lengths).cumsum(0).tolist()
    places = [place for row in rows.index for place in range(ends[row] - lengths[row], ends[row])]
    return to_device(places, torch.int64, rows.on_device.device)
