"""Models and a guided server for them, for programs that a person starts without a server of their own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from sgl_proxythinker import tiny_family
from sgl_proxythinker.programs.server_process import reserve_port, running

# What the start-up log says, in order, and what a person wants to know meanwhile.
STAGES = (
    ("is guided by", "checked that the models fit"),
    ("Init torch distributed begin", "imported SGLang in the scheduler"),
    ("; memory:", "loaded the models and planned their memory"),
    ("Uvicorn running on", "listening"),
    ("fired up and ready", "warmed up"),
)
START_WITHIN_S = 900

# On a GPU, SGLang's kernels take 16 bits, and the heads of tiny models need other attention than the default.
TINY_ON_GPU = "--dtype float16 --attention-backend triton --mm-attention-backend sdpa --sampling-backend pytorch"
TINY_ON_CPU = "--dtype float32"
TINY_POOL = "--max-total-tokens 8192"


@dataclass(frozen=True)
class Models:
    """Base, expert and amateur, and further experts of the same amateur by name: paths or hub ids."""

    base: str | Path
    expert: str | Path
    amateur: str | Path
    ours: bool = False  # small pools, and other kernels than the published models
    experts: Mapping[str, str | Path] = field(default_factory=dict)


def trained_family(*, both_experts: bool = False) -> Models:
    """The small models that were trained for this project and come with it; `both_experts`: with the specialist."""
    second = {tiny_family.SPECIALIST.name: tiny_family.SPECIALIST} if both_experts else {}
    return Models(tiny_family.BASE, tiny_family.EXPERT, tiny_family.AMATEUR, ours=True, experts=second)


def is_trained_family(base: str) -> bool:
    """Whether a server's base is the tiny trained one. Trained on bare questions, it is confused by instructions."""
    return Path(base).parts[-2:] == tiny_family.BASE.parts[-2:]


@contextlib.contextmanager
def serving(models: Models, alpha: float, log: Path, console: Console) -> Iterator[str]:
    """A guided server on loopback, with its start shown step by step; ended with the block. Yields its URL.

    Raises:
        SystemExit: it did not start; the message holds the end of its log.
    """
    port = reserve_port()
    command = [
        sys.executable, "-m", "sglang.launch_server", "--plugin", "proxythinker", "--host", "127.0.0.1",
        "--port", str(port), "--nccl-port", str(reserve_port()), "--model-path", str(models.base),
        "--proxy-expert-path", str(models.expert), "--proxy-amateur-path", str(models.amateur),
        "--proxy-alpha", str(alpha),
        *(part for name, path in models.experts.items() for part in ("--proxy-expert", f"{name}={path}")),
    ]  # fmt: skip
    if models.ours:
        console.print(
            "Serving the tiny trained family: it knows questions about grids of coloured shapes, and only those."
        )
        command += f"{TINY_ON_GPU if torch.cuda.is_available() else TINY_ON_CPU} {TINY_POOL}".split()
    with running(command, log) as server:
        show_until_ready(server, log, console)
        yield f"http://127.0.0.1:{port}"


def show_until_ready(server: subprocess.Popen, log: Path, console: Console) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("Starting the server: importing SGLang", total=None)
        reached, deadline = 0, time.monotonic() + START_WITHIN_S
        while reached < len(STAGES):
            text = log.read_text(errors="replace")
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"The server did not start. The end of its log:\n{text[-3000:]}")
            while reached < len(STAGES) and STAGES[reached][0] in text:
                progress.update(task, description=f"Starting the server: {STAGES[reached][1]}")
                reached += 1
            time.sleep(0.2)
