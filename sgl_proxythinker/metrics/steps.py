"""Counts of steps in a scheduler: rows that were guided, traced or broken, and how long each model took."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sgl_proxythinker.metrics.forward_timer import PHASES, PREFILL, ForwardTimer, phase_of
from sgl_proxythinker.placement import Placement
from sgl_proxythinker.roles import BASE

if TYPE_CHECKING:
    from sgl_proxythinker.step.plan import Step, StepInputs
    from sgl_proxythinker.step.worker import ProxyWorker

PICTURES = "pictures"  # a phase of its own: all models embed those of a prefill before the first of them reads it
SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class StepMetrics:
    """Prometheus metrics of the steps of one server, of which this rank reports its part.

    Every rank counts the same rows, so the first one reports them; of a model the first rank that runs it.

    Args:
        labels: SGLang's, of its own metrics in this process.
    """

    def __init__(self, labels: dict[str, Any]):
        # It chooses where values live when it is imported: after SGLang has named a folder for those of all processes.
        from prometheus_client import Counter, Histogram

        self._labels = labels
        self._rows = Counter(
            "sglang:proxy_rows_total",
            "Number of rows of logits that steps have made: guided, or the base's alone.",
            [*labels, "guided", "phase"],
        )
        self._traced_rows = Counter(
            "sglang:proxy_traced_rows_total", "Number of rows of logits whose requests asked for a trace.", [*labels]
        )
        self._broken_rows = Counter(
            "sglang:proxy_broken_rows_total", "Number of requests ended because a fused row was not finite.", [*labels]
        )
        self._model_seconds = Histogram(
            "sglang:proxy_model_forward_seconds",
            "Time of one model's forward, of a sample of them.",
            [*labels, "role", "phase"],
            buckets=SECONDS,
        )
        self._fused_seconds = Histogram(
            "sglang:proxy_fused_forward_seconds",
            "Time of the forwards of all models with their fusion, of a sample of them.",
            [*labels, "phase"],
            buckets=SECONDS,
        )

    def watch(self, worker: ProxyWorker, placement: Placement) -> None:
        """Put what counts around the forwards of a worker and of its models. `placement`: of the models."""
        device = worker.device
        for role, model in worker.ensemble.models.items():
            if placement.ranks[role][0] == worker.rank:
                tell = {phase: self._seconds(self._model_seconds, role=role, phase=phase) for phase in PHASES}
                model.forward = ForwardTimer(model.forward, tell, device)  # type: ignore[method-assign]
                embedding = {PREFILL: self._seconds(self._model_seconds, role=role, phase=PICTURES)}
                model.see = ForwardTimer(model.see, embedding, device)  # type: ignore[method-assign]
        if worker.rank == 0:
            tell = {phase: self._seconds(self._fused_seconds, phase=phase) for phase in PHASES}
            timed = ForwardTimer(worker.model_runner.forward, tell, device)
            worker.model_runner.forward = self._counted(timed, worker.inputs)
            self._broken = self._broken_rows.labels(**self._labels)

    def broken(self, requests: int) -> None:
        """Count requests that were ended, on the first rank."""
        self._broken.inc(requests)

    def _seconds(self, histogram: Any, **labels: str) -> Callable[[float], None]:
        return histogram.labels(**self._labels, **labels).observe

    def _counted(self, forward: Callable[..., Any], inputs: StepInputs) -> Callable[..., Any]:
        """The forward of the primary model, which runs once in each step."""
        # Made now, they are there as 0 before the first step.
        guided, alone = (
            {phase: self._rows.labels(**self._labels, guided=told, phase=phase).inc for phase in PHASES}
            for told in ("true", "false")
        )
        traced = self._traced_rows.labels(**self._labels).inc
        last: Step | None = None
        guided_rows = other_rows = traced_rows = 0

        def counted(forward_batch: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal last, guided_rows, other_rows, traced_rows
            step = inputs.current
            if step is not last:  # mostly it is: of the requests that decode
                last = step
                guided_rows = inputs.guided_rows
                other_rows = len(step.owner) - guided_rows
                traced_rows = sum(len(of_pair.rows[BASE]) for of_pair in step.traced)
            phase = phase_of(forward_batch)
            if guided_rows:
                guided[phase](guided_rows)
            if other_rows:
                alone[phase](other_rows)
            if traced_rows:
                traced(traced_rows)
            return forward(forward_batch, *args, **kwargs)

        return counted


_of_schedulers: WeakKeyDictionary[Any, StepMetrics] = WeakKeyDictionary()


def count_steps(scheduler: Any, placement: Placement) -> None:
    """Count the steps of a server from here on, as far as this rank reports them.

    Args:
        scheduler: SGLang's, with metrics enabled and with our worker.
        placement: of the models.
    """
    worker = scheduler.tp_worker
    if any(placement.ranks[role][0] == worker.rank for role in worker.ensemble.models):
        _of_schedulers[scheduler] = metrics = StepMetrics(scheduler.metrics_collector.labels)
        metrics.watch(worker, placement)


def step_metrics(scheduler: Any) -> StepMetrics | None:
    """Of a server whose steps are counted, else None. `scheduler`: SGLang's, of the first rank."""
    return _of_schedulers.get(scheduler)
