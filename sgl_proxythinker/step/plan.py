"""What the requests of a step ask of guidance, on the device; copied there when it differs from the last step's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from sgl_proxythinker.guidance import CARRIED, Guidance, readers_of
from sgl_proxythinker.step.rows import GuidedRows, needs_proxies, to_device
from sgl_proxythinker.step.trace import TracedRows


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
        self._guidances: list[Guidance] = []
        self._step: Step  # of `_guidances`, once there was one
        self._is_open = False

    @contextmanager
    def of(self, reqs: Sequence[Any], for_all_rows: bool) -> Iterator[Step]:
        """While it is open, `current` is the step of these requests.

        Args:
            reqs: SGLang's `Req` of each row.
            for_all_rows: the small models run for all rows, whatever these ask for.

        Raises:
            RuntimeError: a request has not been admitted, or has a prefix that it can't go on from.
        """
        # A decoding step asks for the same as the last one, mostly: these are compared, and not read.
        asked = [_carried(req) for req in reqs], [readers_of(req.extra_key) for req in reqs], for_all_rows
        if asked != self._asked:
            self._asked = None  # where the following raises, the next step is read again
            self._guidances = [Guidance.of_carried(value) for value in asked[0]]
            needed = [needs_proxies(*row) for row in zip(self._guidances, asked[1], strict=True)]
            self._step = self.on_device(self._guidances, [True] * len(needed) if for_all_rows else needed)
            self._asked = asked
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
        return self.on_device(self._guidances, [True] * len(self._guidances))

    def on_device(self, guidances: list[Guidance], needed: list[bool]) -> Step:
        """The step whose rows ask for this, and of which some need the small models."""
        weights = [guidance.weights for guidance in guidances]
        expert, amateur = to_device(weights, torch.float32, self._device).T.contiguous()
        guided = GuidedRows.of(needed, self._device)
        rows = None
        if traced := [row for row, guidance in enumerate(guidances) if guidance.trace]:
            places = [guided.index.index(row) for row in traced]
            rows = TracedRows(*(to_device(index, torch.int64, self._device) for index in (traced, places)))
        return Step(len(guidances), expert, amateur, guided, rows)


def _carried(req: Any) -> Any:
    params = req.sampling_params.custom_params
    if params is None or CARRIED not in params:
        raise RuntimeError(f"request {req.rid} came to a step without its guidance")
    return params[CARRIED]
