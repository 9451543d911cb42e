"""Queries of the dashboard and of the alerts, and whether a live `/metrics` has what they ask for."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser as promql
import yaml

from live_metrics import Sample

DOCS = Path(__file__).parent.parent / "docs"
DASHBOARD = DOCS / "grafana" / "proxythinker.json"
# Prometheus adds them when it asks a server.
OF_PROMETHEUS = {"instance", "job"}
# What Grafana fills in.
VARIABLES = {"$__rate_interval": "1m", "$model": ".*", "$instance": ".*"}


class Query(NamedTuple):
    where: str  # the panel's title or the alert's name
    row: str  # of the dashboard
    expr: str
    legend: str = ""


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def of_dashboard() -> list[Query]:
    found, row = [], ""
    for panel in dashboard()["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        found += [Query(panel["title"], row, one["expr"], one["legendFormat"]) for one in panel.get("targets", ())]
    return found


def of_alerts() -> list[Query]:
    [block] = [
        part
        for part in re.findall(r"```yaml\n(.*?)```", (DOCS / "metrics.md").read_text(), re.DOTALL)
        if "alert:" in part
    ]
    [group] = yaml.safe_load(block)["groups"]
    return [Query(rule["alert"], "alerts", rule["expr"]) for rule in group["rules"]]


def filled_in(expr: str) -> str:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


def complaints(query: Query, samples: list[Sample]) -> list[str]:
    """What a query asks for and a server doesn't show; and labels that its legend names and its result lacks."""
    shown = defaultdict(list)
    for one in samples:
        shown[one.name].append(one.labels)
    found: list[str] = []

    def selector(node: promql.VectorSelector) -> set[str]:
        series = shown[node.name]
        if not series:
            found.append(f"{node.name} is not shown")
            return set()
        labels = set.intersection(*map(set, series)) | OF_PROMETHEUS
        for matcher in node.matchers.matchers:
            if matcher.name not in labels:
                found.append(f"{node.name} has no label {matcher.name}")
            elif matcher.op == promql.MatchOp.Equal and matcher.name not in OF_PROMETHEUS:
                if all(one[matcher.name] != matcher.value for one in series):
                    found.append(f"{node.name} has no {matcher}")
        return labels

    def labels_of(node: Any) -> set[str] | None:
        """Of the series that an expression gives; None of a number."""
        if isinstance(node, promql.VectorSelector):
            return selector(node)
        if isinstance(node, promql.MatrixSelector):
            return selector(node.vector_selector)
        if isinstance(node, promql.AggregateExpr):
            labels, kept = labels_of(node.expr) or set(), set()
            if node.modifier is not None:
                assert node.modifier.type == promql.AggModifierType.By, "tell what stays, not what goes"
                kept = set(node.modifier.labels)
                found.extend(f"{node.expr} has no label {name}" for name in sorted(kept - labels))
            return kept
        if isinstance(node, promql.BinaryExpr):
            sides = [labels for side in (node.lhs, node.rhs) if (labels := labels_of(side)) is not None]
            if len(sides) == 2 and sides[0] != sides[1]:
                found.append(f"the sides of {node} have other labels and match nothing")
            return sides[0] if sides else None
        if isinstance(node, promql.Call):
            [*_, labels] = [None, *(labels for arg in node.args if (labels := labels_of(arg)) is not None)]
            return labels - {"le"} if labels and node.func.name == "histogram_quantile" else labels
        if isinstance(node, promql.ParenExpr):
            return labels_of(node.expr)
        assert isinstance(node, promql.NumberLiteral), f"{node}: this reader does not know it"
        return None

    given = labels_of(promql.parse(filled_in(query.expr))) or set()
    for name in re.findall(r"\{\{(\w+)\}\}", query.legend):
        if name not in given:
            found.append(f"its legend names {name}, and its series have {sorted(given)}")
    return found
