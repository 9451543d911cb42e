"""Counts of requests in the main process: strengths of those that are admitted, reasons of those that are refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from sgl_proxythinker.guidance import Contrast, Guidance
from sgl_proxythinker.metrics.refusals import REASONS, reason_of
from sgl_proxythinker.requests.call import HttpCall

STRENGTHS = (-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0)
NO_EXPERT = "none"  # of a request that the base alone answers


class RequestMetrics:
    """Prometheus metrics of the requests of one server.

    Args:
        labels: SGLang's, of its own metrics in this process.
        experts: the names of the server's experts; none where it serves the base alone.
    """

    def __init__(self, labels: dict[str, Any], experts: Iterable[str]):
        # It chooses where values live when it is imported: after SGLang has named a folder for those of all processes.
        from prometheus_client import Counter, Histogram

        strength = Histogram(
            "sglang:proxy_strength",
            "Strength (alpha) of each prompt of an admitted request, for each expert that steers it.",
            [*labels, "expert"],
            buckets=STRENGTHS,
        )
        refused = Counter(
            "sglang:proxy_refused_requests_total",
            "Number of HTTP requests that were refused, by the kind of their refusal.",
            [*labels, "reason"],
        )
        # Made now, they are there as 0 before the first request: what appears with 1 has not increased.
        self._strengths = {name: strength.labels(**labels, expert=name) for name in (NO_EXPERT, *experts)}
        self._refused = {reason: refused.labels(**labels, reason=reason) for reason in REASONS}

    def admitted(self, guidances: Iterable[Guidance]) -> None:
        """Count a request that was admitted. `guidances`: of each of its prompts."""
        for guidance in guidances:
            if guidance.is_base_alone:
                self._strengths[NO_EXPERT].observe(0.0)
            for contrast in guidance.contrasts:
                self._strengths[contrast.plus].observe(_first_strength(guidance, contrast))

    def answered(self, call: HttpCall, status: int) -> None:
        """Count an HTTP request whose answer begins with this status, if it is refused."""
        if (reason := reason_of(call, status)) is not None:
            self._refused[reason].inc()


def _first_strength(guidance: Guidance, contrast: Contrast) -> float:
    """Of the first token: a schedule's own, else the constant one, which other laws go over."""
    if guidance.law is not None and guidance.law.schedule is not None:
        return guidance.law.schedule[0][1]
    return contrast.weight


_of_managers: WeakKeyDictionary[Any, RequestMetrics] = WeakKeyDictionary()


def count_requests(manager: Any, experts: Iterable[str]) -> None:
    """Count the requests of a server from here on. `manager`: SGLang's `TokenizerManager`, with metrics enabled."""
    _of_managers[manager] = RequestMetrics(manager.metrics_collector.labels, experts)


def request_metrics(manager: Any) -> RequestMetrics | None:
    """Of a server whose requests are counted, else None. `manager`: SGLang's `TokenizerManager`."""
    return _of_managers.get(manager)
