"""Drafts that count with a given probability: the throughput of speculation at an acceptance that random weights lack.

Every other cost is real: the models read the same chains, a token is drawn at every position, and what is drawn is
compared with what was drafted. Only how many of the tokens count is drawn from a geometric distribution. The tokens are
then no answer to anything; a benchmark's are not in any case.

The probability stands in a file that the processes of an engine map: so one engine is timed at several.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

_VARIABLE = "PROXYTHINKER_BENCHMARK_ACCEPTANCE"  # the file, in the environment of all processes
_NUMBER = struct.Struct("d")


def offer(file: Path) -> None:
    """In the parent, before an engine starts: its drafts count as `force` will say."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_NUMBER.pack(1.0))
    os.environ[_VARIABLE] = str(file.resolve())


def is_offered() -> bool:
    return _VARIABLE in os.environ


def force(probability: float) -> None:
    """From the next cycle on each draft counts with this probability, if those before it do."""
    with open(os.environ[_VARIABLE], "r+b") as file:
        file.write(_NUMBER.pack(probability))


def force_if_asked() -> None:
    """In each process that a benchmark starts, if an acceptance was offered."""
    if is_offered():
        with open(os.environ[_VARIABLE], "rb") as file:
            mapped = mmap.mmap(file.fileno(), _NUMBER.size, access=mmap.ACCESS_READ)
        _force(lambda: _NUMBER.unpack_from(mapped)[0])


def _force(probability: Callable[[], float]) -> None:
    from sgl_proxythinker.launch import processes

    prepare = processes._prepare

    def prepare_and_force(server_args: Any) -> None:
        prepare(server_args)
        import torch

        from sgl_proxythinker.speculation.worker import SpeculativeWorker

        accept = SpeculativeWorker._accept
        generators: dict[str, torch.Generator] = {}

        def count(worker: Any, chains: Any, tokens: Any) -> Any:
            accept(worker, chains, tokens)
            if not generators:
                # The same on all ranks.
                generators[""] = torch.Generator(chains.device).manual_seed(0)
            drawn = torch.rand(len(chains), chains.shape[1] - 1, device=chains.device, generator=generators[""])
            return (drawn < probability()).int().cumprod(dim=1).sum(dim=1) + 1

        SpeculativeWorker._accept = count

    processes._prepare = prepare_and_force
