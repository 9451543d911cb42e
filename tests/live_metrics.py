"""What a live `/metrics` shows, read by Prometheus' own parser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from servers import Server


class Sample(NamedTuple):
    name: str
    labels: dict[str, str]
    value: float


def samples_of(server: Server) -> list[Sample]:
    response = server.get("/metrics")
    assert response.ok
    families = text_string_to_metric_families(response.text)
    return [Sample(one.name, dict(one.labels), one.value) for family in families for one in family.samples]


class Counts:
    """Values of the metrics of a server, or by how much they grew."""

    def __init__(self, samples: list[Sample]):
        self.values = {(one.name, frozenset(one.labels.items())): one.value for one in samples}

    def __call__(self, name: str, **labels: str) -> float:
        """The sum over all samples of this name that have these labels, of which there must be one."""
        found = [
            value
            for (own, of_own), value in self.values.items()
            if own == name and labels.items() <= dict(of_own).items()
        ]
        assert found, f"no {name} with {labels}"
        return sum(found)

    def by(self, name: str, label: str) -> dict[str, float]:
        """What has grown, by a label."""
        grown: dict[str, float] = {}
        for (own, labels), value in self.values.items():
            if own == name and value:
                key = dict(labels)[label]
                grown[key] = grown.get(key, 0) + value
        return grown


@contextmanager
def counting(server: Server) -> Iterator[Counts]:
    """By how much each value grows while it is open; of a server that rests before and after."""
    server.flush_cache()
    before, grown = Counts(samples_of(server)), Counts([])
    yield grown
    server.flush_cache()
    after = Counts(samples_of(server))
    grown.values = {key: value - before.values.get(key, 0.0) for key, value in after.values.items()}
