"""SGLang's server with more ranks than GPUs: `python ranks_share_gpus.py` takes the arguments of `launch_server`.

Each rank has the next GPU, round and round. NCCL takes no two ranks of a host on one GPU, so each rank calls itself a
host, and they talk through sockets: slow, but with the collectives, graphs and streams of a server whose ranks have
GPUs of their own.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from unittest.mock import patch

import torch

ENVIRONMENT = {
    "SGLANG_ONE_VISIBLE_DEVICE_PER_PROCESS": "1",
    "NCCL_NET": "Socket",
    "NCCL_SOCKET_IFNAME": "lo",
}
# Its kernels write into the memory of other GPUs.
FLAGS = ("--disable-custom-all-reduce",)


Choice = Callable[[int], AbstractContextManager[int]]


def round_and_round(choose: Choice) -> Choice:
    """Around SGLang's choice of the GPU that a rank's process sees: the number of the rank becomes that of a GPU."""

    @contextlib.contextmanager
    def next_gpu(rank: int) -> Iterator[int]:
        with patch.dict(os.environ, NCCL_HOSTID=f"rank-{rank}"), choose(rank % torch.cuda.device_count()) as gpu:
            yield gpu

    return next_gpu


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)
    from sglang.srt.entrypoints import engine

    engine.maybe_reindex_device_id = round_and_round(engine.maybe_reindex_device_id)
    sys.argv += FLAGS
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)
