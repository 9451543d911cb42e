"""Which rows of a batch the small models run for, and the batch that holds only those.

A request that the base answers alone, and that asks for no trace, has its prefix in another part of the radix tree, so
that nothing in the common part was computed by fewer than three models (`guidance.Guidance.tree_key`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sgl_proxythinker.guidance import Guidance
from sgl_proxythinker.step.batch_fields import Owner, owned_by

if TYPE_CHECKING:
    from sgl_proxythinker.upstream.runtime import ForwardBatch


@dataclass(frozen=True, slots=True)
class GuidedRows:
    """The rows of a batch that the small models run for, K of B."""

    index: list[int]
    on_device: torch.Tensor  # [K] int64
    places: torch.Tensor  # [B] int64: a row's place among the K, -1 where it is the base's alone

    @classmethod
    def of(cls, needed: list[bool], device: str) -> GuidedRows:
        """From each row's need of the small models."""
        index = [row for row, is_needed in enumerate(needed) if is_needed]
        places = [-1] * len(needed)
        for place, row in enumerate(index):
            places[row] = place
        return cls(index, to_device(index, torch.int64, device), to_device(places, torch.int64, device))


def to_device(values: Any, dtype: torch.dtype, device: str | torch.device) -> torch.Tensor:
    """Copy to the model's device without waiting for it."""
    pin = torch.device(device).type == "cuda"
    return torch.tensor(values, dtype=dtype, pin_memory=pin).to(device, non_blocking=True)


def select_rows(batch: ForwardBatch, rows: GuidedRows) -> ForwardBatch:
    """A batch with only these requests, in the same order. Nothing of `batch` is changed.

    Args:
        batch: one that can be divided (`batch_fields.undividable`).
        rows: which of its requests.
    """
    view = copy.copy(batch)
    tokens = rows.on_device
    if batch.extend_seq_lens_cpu is not None:
        tokens = _tokens_of(batch.extend_seq_lens_cpu, rows)
    for name in owned_by(Owner.ROW):
        if (values := getattr(batch, name)) is not None:
            setattr(view, name, values[rows.on_device])
    for name in owned_by(Owner.TOKEN):
        if (values := getattr(batch, name)) is not None:
            setattr(view, name, values[..., tokens])
    for name in owned_by(Owner.ROW_LIST):
        if (values := getattr(batch, name)) is not None:
            setattr(view, name, [values[row] for row in rows.index])
    _derive(view, batch, rows)
    return view


def _derive(view: ForwardBatch, batch: ForwardBatch, rows: GuidedRows) -> None:
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


def _tokens_of(lengths: list[int], rows: GuidedRows) -> torch.Tensor:
    """[tokens] int64 on the device: where the tokens of these requests are, in an extend batch."""
    ends = torch.tensor(lengths).cumsum(0).tolist()
    places = [place for row in rows.index for place in range(ends[row] - lengths[row], ends[row])]
    return to_device(places, torch.int64, rows.on_device.device)


def needs_proxies(guidance: Guidance, readers: frozenset[str] | None) -> bool:
    """Whether the small models run for a request.

    Args:
        guidance: what it asks for.
        readers: of its part of the radix tree; None: all models.

    Raises:
        RuntimeError: its prefix may be one that a model which it needs has not read.
    """
    if readers is None:
        return True
    if not guidance.reads <= readers:
        raise RuntimeError("a request that is guided or traced has a prefix that the base alone has read")
    return False
