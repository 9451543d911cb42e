"""What fits where: the doctor's plans of the published sizes, as the table in docs/doctor.md.

    python -m benchmarks.sizes

Checkpoints without weights are enough. It takes a few minutes on a machine without a GPU.
"""

from __future__ import annotations

import io
import json
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from benchmarks.weightless import write_weightless
from sgl_proxythinker.doctor.__main__ import main as doctor

BASES, SMALL = ("32B", "72B"), "7B"
GPUS = {"80 GB": 79.6, "141 GB": 140.4}  # GiB that nvidia-smi shows
COUNTS = (1, 2, 4, 8)


def examine(base: Path, small: Path, count: int, memory_gib: float) -> dict:
    """What the doctor prints for scripts."""
    told = io.StringIO()
    flags = ["--model-path", base, "--proxy-expert-path", small, "--proxy-amateur-path", small, "--tp-size", count,
             "--gpu-memory", memory_gib, "--json"]  # fmt: skip
    with redirect_stdout(told):
        doctor([str(flag) for flag in flags])
    return json.loads(told.getvalue())


def cell(examination: dict) -> str:
    if not examination["is_sound"]:
        return "no"
    return f"{examination['placement']['name']}, {examination['memory']['kv_tokens']:,}"


def main() -> None:
    print(f"| base, two {SMALL} | GPU | " + " | ".join(f"{count}" for count in COUNTS) + " |")
    print("|---" * (2 + len(COUNTS)) + "|")
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: write_weightless(Path(folder) / name, name) for name in (*BASES, SMALL)}
        for base in BASES:
            for name, memory in GPUS.items():
                cells = [cell(examine(paths[base], paths[SMALL], count, memory)) for count in COUNTS]
                print(f"| {base} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
