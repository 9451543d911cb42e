"""Drafts that count with a given probability: the throughput of speculation at an acceptance that random weights lack.

Every other cost is real: the models read the same chains, a token is drawn at every position, and what is drawn is
compared with what was drafted. Only how many of the tokens count is drawn from a geometric distribution. The tokens are
then no answer to anything; a benchmark's are not in any case.
"""

from __future__ import annotations

import os
from typing import Any

VARIABLE = "PROXYTHINKER_BENCHMARK_ACCEPTANCE"


def force_if_asked() -> None:
    """In each process that a benchmark starts: as `VARIABLE` says, which is inherited."""
    probability = os.environ.get(VARIABLE)
    if probability is not None:
        _force(float(probability))


def _force(probability: float) -> None:
    from sgl_proxythinker.launch import processes

    prepare = processes._prepare

    def prepare_and_force(server_args: Any) -> None:
        prepare(server_args)
        import torch

        from sgl_proxythinker.speculation.worker import SpeculativeWorker

        accept = SpeculativeWorker._accept
        generators: dict[str, torch.Generator] = {}

        def force(worker: Any, chains: Any, tokens: Any) -> Any:
            accept(worker, chains, tokens)
            if not generators:
                # The same on all ranks.
                generators[""] = torch.Generator(chains.device).manual_seed(0)
            drawn = torch.rand(len(chains), chains.shape[1] - 1, device=chains.device, generator=generators[""])
            return (drawn < probability).int().cumprod(dim=1).sum(dim=1) + 1

        SpeculativeWorker._accept = force

    processes._prepare = prepare_and_force
