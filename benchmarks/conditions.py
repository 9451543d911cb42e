"""What a number was measured on: machine, versions, commit, and the memory bandwidth that bounds it.

    python -m benchmarks.conditions

A process of its own, since asking torch takes GPU memory that an engine is to be given whole.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import Any

import torch


def conditions(commit: str | None = None) -> dict[str, Any]:
    """The conditions of this run; numbers of two runs compare only where these agree."""
    gpus = query_gpus("name", "driver_version", "uuid", "memory.total")
    return {
        "device": gpus[0]["name"] if gpus else f"CPU, {len(os.sched_getaffinity(0))} cores",
        "driver": gpus[0]["driver_version"] if gpus else None,
        "memory_gib": round(int(gpus[0]["memory.total"]) / 1024, 1) if gpus else None,
        "machine": gpus[0]["uuid"] if gpus else platform.node(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sglang": version("sglang"),
        "commit": commit or current_commit(),
        "copy_tb_per_s": round(copy_bytes_per_s() / 1e12, 4),
    }


def ask_conditions(commit: str | None = None) -> dict[str, Any]:
    """`conditions`, asked of a process of its own: torch would keep some of the GPU's memory."""
    command = [sys.executable, "-m", "benchmarks.conditions"]
    text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    where = json.loads(text.splitlines()[-1])
    return where | {"commit": commit} if commit else where


def query_gpus(*fields: str) -> list[dict[str, str]]:
    """Ask nvidia-smi; an empty list where there is none."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []
    return [dict(zip(fields, (value.strip() for value in line.split(",")), strict=True)) for line in lines]


def current_commit() -> str:
    """Of the working tree, `-dirty` when it was changed; $COMMIT where the tree came without its history."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("COMMIT", "unknown")


def copy_bytes_per_s() -> float:
    """Bytes read and written per second by a copy within the device's memory."""
    # Many times what any cache holds.
    cuda = torch.cuda.is_available()
    source = torch.ones(1 << (29 if cuda else 24), dtype=torch.float32, device="cuda" if cuda else "cpu")
    target = torch.empty_like(source)
    seconds = time_call(lambda: target.copy_(source), repeats=10)
    return 2 * source.numel() * source.element_size() / seconds


def time_call(call: Callable[[], Any], repeats: int, before: Callable[[], Any] | None = None) -> float:
    """Median seconds that the device works on `call`, after two calls to warm up.

    Args:
        call: what is timed.
        repeats: how often.
        before: runs before each timed call, to set the caches back; not timed. On a GPU it also gives the launches of
            `call` time to queue up, so that gaps between kernels are not counted.
    """
    for _ in range(2):
        call()
    if not torch.cuda.is_available():
        return median(_wall_seconds(call, before) for _ in range(repeats))
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for start, end in marks:
        if before:
            before()
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return median(start.elapsed_time(end) for start, end in marks) / 1e3


def _wall_seconds(call: Callable[[], Any], before: Callable[[], Any] | None) -> float:
    if before:
        before()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(conditions()))
