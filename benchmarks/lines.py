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


def read_lines(path: Path, benchmark: str) -> list[dict[str, Any]]:
    """The lines of one benchmark, oldest first."""
    lines = map(json.loads, path.read_text().splitlines())
    return [line for line in lines if line.get("benchmark") == benchmark]
