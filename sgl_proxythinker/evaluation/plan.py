"""What a run is to ask: everything that the command line says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sgl_proxythinker.evaluation.benchmarks.rows import Source
from sgl_proxythinker.evaluation.presets import Preset
from sgl_proxythinker.evaluation.sampling import Sampling
from sgl_proxythinker.evaluation.settings import Setting


@dataclass(frozen=True)
class Plan:
    """Of one call of the command."""

    url: str
    api_key: str
    sources: Mapping[str, Source]  # by benchmark
    settings: Mapping[str, Setting]
    preset_name: str
    preset: Preset
    sampling: Sampling
    out: Path
    limit: int | None  # questions of each benchmark
    open_only: bool  # none with choices
    connections: int
