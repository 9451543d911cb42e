"""Strengths of the rows whose request has a law: computed on the device from what the models say of each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from sgl_proxythinker.laws import Law
from sgl_proxythinker.roles import BASE, Role
from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.step.rows import SelectedRequests, to_device
from sgl_proxythinker.step.statistics import row_statistics, row_statistics_of_pair


class LawRows(NamedTuple):
    """The rows of a step that a pair steers by a law, R of N, on the device."""

    pair: tuple[Role, Role]  # an expert and its amateur
    rows: torch.Tensor  # [R] int64, of the base's logits
    model_rows: tuple[torch.Tensor, torch.Tensor]  # [R] int64: the rows of the pair's logits that are these
    prompt_tokens: torch.Tensor  # [R] int64: what the request had read before it generated
    # Those of the R that each law is of, int64, and its numbers for them; None: no row has it.
    schedule: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None  # [S]; [S, P] float32 tokens; [S, P] strengths
    divergence: tuple[torch.Tensor, torch.Tensor] | None  # [D]; [4, D] float32: scale, low, high, warm-up tokens
    entropy: tuple[torch.Tensor, torch.Tensor] | None  # [E]; [E] float32 nats
    after: tuple[torch.Tensor, torch.Tensor] | None  # [A]; [A] float32 strengths after a marker

    @classmethod
    def of(
        cls,
        pair: tuple[Role, Role],
        laws: Mapping[int, tuple[Law, int]],
        runs: Mapping[Role, SelectedRequests],
        device: str | torch.device,
    ) -> LawRows:
        """From the law and the prompt's number of tokens of each row that has one, by its place among the base's."""
        rows, given = list(laws), [law for law, _ in laws.values()]

        def numbers(values: Sequence, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return to_device(values, dtype, device)

        def places(has: Sequence[bool]) -> torch.Tensor:
            return numbers([place for place, it_has in enumerate(has) if it_has], torch.int64)

        schedules = [law.schedule for law in given if law.schedule is not None]
        divergences = [law.divergence for law in given if law.divergence is not None]
        entropies = [law.entropy_above for law in given if law.entropy_above is not None]
        afters = [law.after.alpha for law in given if law.after is not None]
        longest = max(map(len, schedules), default=0)
        # The last point again, up to the longest: the strength stays what it is there.
        padded = [[*points, *[points[-1]] * (longest - len(points))] for points in schedules]
        return cls(
            pair,
            numbers(rows, torch.int64),
            tuple(numbers([runs[role].rows[row] for row in rows], torch.int64) for role in pair),
            numbers([tokens for _, tokens in laws.values()], torch.int64),
            (
                places([law.schedule is not None for law in given]),
                numbers([[tokens for tokens, _ in points] for points in padded]),
                numbers([[strength for _, strength in points] for points in padded]),
            )
            if schedules
            else None,
            (
                places([law.divergence is not None for law in given]),
                numbers([list(column) for column in zip(*divergences, strict=True)]),
            )
            if divergences
            else None,
            (places([law.entropy_above is not None for law in given]), numbers(entropies)) if entropies else None,
            (places([law.after is not None for law in given]), numbers(afters)) if afters else None,
        )


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
        laws: of the R rows.
        weights: [2, N] float32, the constant ones. Read only.
        lengths: [N] integers: tokens of each row's request that the models have read, the last one included.
        logits: raw, of the base and the pair. Read only.
        vocab_size: ids that the tokenizer knows.
        past_marker: [N] bool, whether each row follows its request's marker; where a law has one.

    Returns:
        [2, N] float32. It does not wait for the device.
    """
    of_rows = weights[:, laws.rows].clone()
    generated = (lengths[laws.rows] - laws.prompt_tokens).clamp(min=0)
    if laws.schedule is not None:
        places, tokens, strengths = laws.schedule
        of_rows[:, places] = _interpolated(generated[places], tokens, strengths)
    if laws.after is not None:
        assert past_marker is not None
        places, strengths = laws.after
        of_rows[:, places] = torch.where(past_marker[laws.rows[places]], strengths, of_rows[:, places])
    if laws.divergence is not None:
        places, (scale, low, high, warmup) = laws.divergence
        base, (expert, amateur) = laws.rows[places], (rows[places] for rows in laws.model_rows)
        of_expert, of_amateur = (logits[role] for role in laws.pair)
        small = row_statistics_of_pair(of_expert, expert, of_amateur, amateur, vocab_size).js_nats
        untuned = row_statistics_of_pair(logits[BASE], base, of_amateur, amateur, vocab_size).js_nats
        strength = scale * (small - untuned).clamp(low, high)
        of_rows[:, places] = torch.where(generated[places] < warmup, of_rows[:, places], strength)
    if laws.entropy is not None:
        places, above = laws.entropy
        entropy = row_statistics(logits[BASE], laws.rows[places], vocab_size).entropy
        # Chosen, not multiplied: what a damaged model made NaN is not asked for here.
        of_rows[:, places] = torch.where(entropy > above, of_rows[:, places], 0.0)
    return weights.index_copy(1, laws.rows, of_rows)


def _interpolated(at: torch.Tensor, tokens: torch.Tensor, strengths: torch.Tensor) -> torch.Tensor:
    """[S] float32: each row's polygon of P points, [S, P], at one place of each; constant before and after."""
    at = at.float()
    behind = (tokens <= at[:, None]).sum(dim=1)
    left, right = (behind - 1).clamp(min=0), behind.clamp(max=tokens.shape[1] - 1)
    (x0, x1), (y0, y1) = (
        (table.gather(1, left[:, None])[:, 0], table.gather(1, right[:, None])[:, 0]) for table in (tokens, strengths)
    )
    share = torch.where(x1 > x0, (at - x0) / (x1 - x0), 0.0).clamp(0.0, 1.0)
    return y0 + (y1 - y0) * share
