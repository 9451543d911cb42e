"""The files of an evaluation: one JSON line for each setting, one for each answer, and what they were measured on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.tiny_family.measures import Row
from sgl_proxythinker.tiny_family.settings import Setting

SAMPLE_FIELDS = ("problem", "epoch", "right", "tokens")  # enough for paired comparisons


class Results:
    """What is finished stays: settings are appended, and a folder holds one family on one set of problems.

    Args:
        folder: where the files are.
        run: what all settings have in common.

    Raises:
        ValueError: the folder holds results of another run.
    """

    def __init__(self, folder: Path, run: dict[str, Any]) -> None:
        self.run, self.conditions = run, {}
        self.lines, self.samples = folder / "results.jsonl", folder / "samples.jsonl"
        marker = folder / "run.json"
        if marker.exists() and (before := json.loads(marker.read_text())) != run:
            raise ValueError(f"{folder} holds another run, {before}, not {run}: use another --out")
        marker.write_text(json.dumps(run) + "\n")
        self._drop_unfinished()

    def finished(self) -> set[str]:
        return {line["setting"] for line in read_lines(self.lines)}

    def write(self, setting: Setting, summary: dict[str, Any], rows: list[Row]) -> None:
        described = {"setting": setting.name, **asdict(setting)}
        del described["name"]
        # The setting's line comes last: it says that all of its answers are there.
        fields = ({name: row[name] for name in SAMPLE_FIELDS} for row in rows)
        _write_lines(self.samples, [{"setting": setting.name, **one} for one in fields], "a")
        _write_lines(self.lines, [{**described, **summary, **self.run, **self.conditions}], "a")

    def _drop_unfinished(self) -> None:
        """Drop what a process left that was killed while it wrote."""
        finished = self.finished()
        _write_lines(self.lines, read_lines(self.lines), "w")
        _write_lines(self.samples, [row for row in read_lines(self.samples) if row["setting"] in finished], "w")


def _write_lines(file: Path, lines: list[dict[str, Any]], mode: str) -> None:
    with file.open(mode) as output:
        output.writelines(json.dumps(line) + "\n" for line in lines)


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The file's lines, but for a last one that was cut off; none if there is no file."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
