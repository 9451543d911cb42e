"""Results: a JSON object a line, each with the conditions it was measured under."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


def append_line(out: Path, line: dict[str, Any]) -> None:
    """Add one line to `out`, with the time, so that a run that is cut short keeps what it has measured."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a") as file:
        file.write(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S"), **line}) + "\n")


def read_lines(benchmark: str, *files: Path) -> list[dict[str, Any]]:
    """The lines of one benchmark in some files, in their order."""
    lines = (json.loads(line) for file in files for line in file.read_text().splitlines())
    return [line for line in lines if line.get("benchmark") == benchmark]


def group_by_setting(lines: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Lines that compare: of one setting, machine and commit."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        same = [line["setting"], line["conditions"]["machine"], line["conditions"]["commit"]]
        groups.setdefault(json.dumps(same), []).append(line)
    return list(groups.values())
