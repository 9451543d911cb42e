"""Strengths of the rows whose request has a law: computed on the device from what the models say of each token."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sgl_proxythinker.roles import BASE, Role
from sgl_proxythinker.step.law_rows import NUMBERS, LawRows
from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.step.statistics import pair_statistics_in_torch, row_statistics_in_torch


def law_weights(
    laws: LawRows,
    weights: torch.Tensor,
    lengths: torch.Tensor,
    logits: Mapping[Role, ShardedLogits],
    vocab_size: int,
    past_marker: torch.Tensor | None = None,
) -> torch.Tensor:
    """The weights of a pair's rows, where laws say them.

        schedule:    weight = strength of the number of generated tokens, linear between points
        after:       weight = the marker's strength, where it was generated; else that of the schedule, or the constant
        divergence:  weight = scale * clamp(JS(expert, amateur) - JS(base, amateur), low, high), after warm-up
        entropy:     weight = that of the others, or the constant one, where H(base) > above; else 0

    Args:
        laws: of the N rows.
        weights: [2, N] float32, the constant ones. Read only.
        lengths: [N] integers: tokens of each row's request that the models have read, the last one included.
        logits: raw, of the base and the pair. Read only.
        vocab_size: ids that the tokenizer knows.
        past_marker: [N] bool, whether each row follows its request's marker; where a law has one.

    Returns:
        [2, N] float32, new. On CUDA it runs a kernel, whose specification is `law_weights_in_torch`, and does not wait
        for the device.
    """
    assert past_marker is not None or not laws.has_marker
    if weights.is_cuda:
        # Not before it is needed: a machine without a GPU may lack triton.
        from sgl_proxythinker.step.law_strengths_kernel import law_weights_by_kernel

        return law_weights_by_kernel(laws, weights, lengths, logits, vocab_size, past_marker)
    return law_weights_in_torch(laws, weights, lengths, logits, vocab_size, past_marker)


def law_weights_in_torch(
    laws: LawRows,
    weights: torch.Tensor,
    lengths: torch.Tensor,
    logits: Mapping[Role, ShardedLogits],
    vocab_size: int,
    past_marker: torch.Tensor | None = None,
) -> torch.Tensor:
    """What `law_weights` means, on any device. It waits for the device."""
    prompt_tokens, scale, low, high, warmup, above, after = laws.numbers[:, :NUMBERS].unbind(1)
    generated = (lengths - prompt_tokens.long()).clamp(min=0)
    made = weights.clone()
    if laws.points:
        tokens, strengths = laws.numbers[:, NUMBERS:].unflatten(1, (2, laws.points)).unbind(1)
        made = torch.where(tokens[:, 0].isnan(), made, _interpolated(generated, tokens, strengths))
    if past_marker is not None:
        made = torch.where(past_marker & ~after.isnan(), after, made)
    # No model says anything of the other rows here: what a damaged one made NaN is chosen, not multiplied.
    if len(rows := (generated >= warmup).nonzero()[:, 0]):
        of_expert, of_amateur = (logits[role] for role in laws.pair)
        expert, amateur = (of_model[rows] for of_model in laws.model_rows)
        small = pair_statistics_in_torch(of_expert, expert, of_amateur, amateur, vocab_size).js_nats
        untuned = pair_statistics_in_torch(logits[BASE], rows, of_amateur, amateur, vocab_size).js_nats
        made[:, rows] = scale[rows] * (small - untuned).clamp(low[rows], high[rows])
    if len(rows := (~above.isnan()).nonzero()[:, 0]):
        entropy = row_statistics_in_torch(logits[BASE], rows, vocab_size).entropy
        made[:, rows] = torch.where(entropy > above[rows], made[:, rows], 0.0)
    return made


def _interpolated(at: torch.Tensor, tokens: torch.Tensor, strengths: torch.Tensor) -> torch.Tensor:
    """[N] float32: each row's polygon of up to P points, [N, P], at one place of each; constant before and after."""
    at = at.float()
    behind, points = (tokens <= at[:, None]).sum(dim=1), (~tokens.isnan()).sum(dim=1)
    left, right = (behind - 1).clamp(min=0), torch.minimum(behind, points - 1).clamp(min=0)
    (x0, x1), (y0, y1) = (
        (table.gather(1, left[:, None])[:, 0], table.gather(1, right[:, None])[:, 0]) for table in (tokens, strengths)
    )
    share = torch.where(x1 > x0, (at - x0) / (x1 - x0), 0.0).clamp(0.0, 1.0)
    return y0 + (y1 - y0) * share
