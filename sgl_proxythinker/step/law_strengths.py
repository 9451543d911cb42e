"""Strengths of the rows whose request has a law: computed on the device from what the models say of each token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch

from sgl_proxythinker.laws import Law
from sgl_proxythinker.roles import BASE, Role
from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.step.rows import SelectedRequests, to_device
from sgl_proxythinker.step.statistics import pair_statistics_in_torch, row_statistics_in_torch

NONE = math.nan  # in place of a number that a row's law does not have; no law can say it
NUMBERS = 7  # of a row, before its points


class LawRows(NamedTuple):
    """The laws by which a pair steers rows of a step, on the device; the row of a request without one has none."""

    pair: tuple[Role, Role]  # an expert and its amateur
    model_rows: tuple[torch.Tensor, torch.Tensor]  # [N] int64: the rows of the pair's logits that are these
    # [N, NUMBERS + 2 * P] float32: what the request had read before it generated, exact below 2**24 tokens; scale, low,
    # high and warm-up tokens of a divergence; nats of an entropy; the strength after a marker; then tokens of P points
    # of a schedule, and P strengths. NONE where it has no such law, and past its last point.
    numbers: torch.Tensor
    has_marker: bool  # whether one of them has

    @classmethod
    def of(
        cls,
        pair: tuple[Role, Role],
        laws: Mapping[int, tuple[Law, int]],
        runs: Mapping[Role, SelectedRequests],
        device: str | torch.device,
    ) -> LawRows:
        """From the law and the prompt's number of tokens of each row that has one, by its place among the base's."""
        expert, amateur = (runs[role] for role in pair)
        given = [law for law, _ in laws.values()]
        points = max(len(law.schedule or ()) for law in given)
        table = [[0.0, *[NONE] * (NUMBERS - 1 + 2 * points)]] * len(expert.rows)
        for row, (law, prompt_tokens) in laws.items():
            table[row] = _numbers(law, prompt_tokens, points)
        numbers = to_device(table, torch.float32, device)
        has_marker = any(law.after is not None for law in given)
        return cls(pair, (expert.rows_on_device, amateur.rows_on_device), numbers, has_marker)

    @property
    def points(self) -> int:
        """P"""
        return (self.numbers.shape[1] - NUMBERS) // 2


def _numbers(law: Law, prompt_tokens: int, points: int) -> list[float]:
    """A row of `LawRows.numbers`."""
    schedule = law.schedule or ()
    no_points = [NONE] * (points - len(schedule))
    return [
        prompt_tokens,
        *(law.divergence or [NONE] * 4),
        NONE if law.entropy_above is None else law.entropy_above,
        NONE if law.after is None else law.after.alpha,
        *(tokens for tokens, _ in schedule),
        *no_points,
        *(strength for _, strength in schedule),
        *no_points,
    ]


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
