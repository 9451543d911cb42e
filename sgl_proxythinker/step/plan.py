"""What the requests of a step ask of guidance, on the device; copied there when it differs from the last step's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from sgl_proxythinker.requests.radix_key import is_kept_apart
from sgl_proxythinker.step.rows import GuidedRows, needs_proxies, to_device
from sgl_proxythinker.step.trace import TracedRows, rows_that_ask
from sgl_proxythinker.strength import Strength, read_strength


class Step(NamedTuple):
    """A batch of B requests, in its order."""

    size: int  # B
    expert: torch.Tensor  # [B] float32: the expert's weight
    amateur: torch.Tensor  # [B] float32
    guided: GuidedRows  # the rows that the small models run for
    traced: TracedRows | None  # the rows whose request asks for a trace; None: no row does


class StepInputs:
    """Keeps the step that is under way.

    Args:
        device: of the models.
    """

    def __init__(self, device: str):
        self._device = device
        self._asked: tuple | None = None
        self._step: Step | None = None
        self._is_open = False

    @contextmanager
    def of(self, reqs: Sequence[Any], default_alpha: float, for_all_rows: bool) -> Iterator[Step]:
        """While it is open, `current` is the step of these requests.

        Args:
            reqs: SGLang's `Req` of each row.
            default_alpha: the server's.
            for_all_rows: the small models run for all rows, whatever these ask for.
        """
        params = [req.sampling_params.custom_params for req in reqs]
        strengths = [read_strength(row, default_alpha) for row in params]
        traced = rows_that_ask(params)
        needed = [
            needs_proxies(strength, row in traced, is_kept_apart(req.extra_key)) or for_all_rows
            for row, (strength, req) in enumerate(zip(strengths, reqs, strict=True))
        ]
        if (strengths, traced, needed) != self._asked:
            self._step = self.on_device(strengths, traced, needed)
            self._asked = strengths, traced, needed
        self._is_open = True
        try:
            yield self._step
        finally:
            self._is_open = False

    @property
    def current(self) -> Step:
        if not self._is_open:
            raise RuntimeError("a forward outside of forward_batch_generation has no strength")
        return self._step

    def for_all_rows(self) -> Step:
        """The current step with the small models run for all rows: right too, and slower."""
        strengths, traced, needed = self._asked
        return self.on_device(strengths, traced, [True] * len(needed))

    def on_device(self, strengths: list[Strength], traced: list[int], needed: list[bool]) -> Step:
        """The step whose rows have these strengths, of which some ask for a trace and some need the small models."""
        expert, amateur = to_device(strengths, torch.float32, self._device).T.contiguous()
        guided = GuidedRows.of(needed, self._device)
        rows = None
        if traced:
            places = [guided.index.index(row) for row in traced]
            rows = TracedRows(*(to_device(index, torch.int64, self._device) for index in (traced, places)))
        return Step(len(strengths), expert, amateur, guided, rows)
