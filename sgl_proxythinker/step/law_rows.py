"""The laws of a step's rows as one table of numbers on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch

from sgl_proxythinker.laws import Law
from sgl_proxythinker.roles import Role
from sgl_proxythinker.step.rows import SelectedRequests, to_device

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
