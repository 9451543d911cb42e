"""Ids that the base finds implausible beside its best can't be drawn: contrastive decoding's adaptive plausibility
constraint (Li et al. 2023, arXiv 2210.15097), for the requests that say how implausible.

A mask or a ban of the request may rule out the base's best, so what is best is known only once SGLang has written them
into the fused rows: those are cut then, in the place where they are sampled. The base's logits are still there, as the
next forward overwrites them. Nothing waits for the device, and a step in which no row asks does nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.step.rows import to_device
from sgl_proxythinker.step.statistics import ROWS_AT_ONCE

_ATTRIBUTE = "proxy_plausible"


class PlausibleRows(NamedTuple):
    """The rows of a step whose requests ask, R of N, on the device."""

    rows: torch.Tensor  # [R] int64
    margins: torch.Tensor  # [R] float32, log(r), at most 0: a logit that is further below the best is implausible

    @classmethod
    def of(cls, asked: Mapping[int, float], device: str) -> PlausibleRows:
        """From the share of the best's probability that each row asks for, above 0 and at most 1."""
        margins = [math.log(share) for share in asked.values()]
        return cls(to_device(list(asked), torch.int64, device), to_device(margins, torch.float32, device))


class _ToCut(NamedTuple):
    asked: PlausibleRows
    base: ShardedLogits
    vocab_size: int


def attach_plausible(logits_output: Any, asked: PlausibleRows, base: ShardedLogits, vocab_size: int) -> None:
    """Leave word for `cut_implausible`.

    Args:
        logits_output: SGLang's `LogitsProcessorOutput` of this step, with the fused rows.
        asked: the rows.
        base: its raw logits; they stay as they are until the tokens are sampled.
        vocab_size: ids that the tokenizer knows.
    """
    setattr(logits_output, _ATTRIBUTE, _ToCut(asked, base, vocab_size))


def cut_implausible(logits_output: Any, logit_bias: torch.Tensor | None) -> None:
    """Write -inf where the base's probability is below r times that of its best id, of those that are not -inf.

    Call it when grammars, biases and penalties are in the rows, and before they are sampled. At least the best id of a
    row stays, so none becomes empty.

    Args:
        logits_output: its `next_token_logits` are the fused rows, which are overwritten where `attach_plausible` left
            word; otherwise nothing is done.
        logit_bias: [N, >= vocab_size], what requests add to the logits of ids, or None: to the base's too, so that an
            id which they ban is not taken for the best, nor one which they force for implausible.
    """
    to_cut: _ToCut | None = getattr(logits_output, _ATTRIBUTE, None)
    if to_cut is None:
        return
    delattr(logits_output, _ATTRIBUTE)  # the base's rows don't live until the step's result is processed
    (rows, margins), base, vocab_size = to_cut
    fused = logits_output.next_token_logits
    if fused.is_cuda:
        from sgl_proxythinker.step.plausible_kernel import cut_by_kernel

        cut_by_kernel(fused, rows, margins, base, logit_bias, vocab_size)
    else:
        cut_in_torch(fused, rows, margins, base, logit_bias, vocab_size)


def cut_in_torch(
    fused: torch.Tensor,
    rows: torch.Tensor,
    margins: torch.Tensor,
    base: ShardedLogits,
    logit_bias: torch.Tensor | None,
    vocab_size: int,
) -> None:
    """What `cut_implausible` means, on any device.

    Args:
        fused: [N, >= vocab_size] float32, overwritten.
        rows, margins: of `PlausibleRows`.
        base, logit_bias, vocab_size: as there.
    """
    for part, margin in zip(rows.split(ROWS_AT_ONCE), margins.split(ROWS_AT_ONCE), strict=True):
        likely = base.rows(part, vocab_size).float()
        if logit_bias is not None:
            likely = likely + logit_bias[part, :vocab_size]
        known = fused[part, :vocab_size]
        best = likely.masked_fill(known == -torch.inf, -torch.inf).amax(dim=-1)
        fused[part, :vocab_size] = known.masked_fill(likely < (best + margin)[:, None], -torch.inf)
