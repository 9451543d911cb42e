"""SGLang with more ranks than GPUs, to try a layout where there are too few: `launch_server`, and its arguments.

    python -m programs.shared_gpus --plugin proxythinker --tp-size 4 --proxy-placement dedicated --model-path ...

The ranks take the GPUs in turn. NCCL takes no two ranks of a host on one GPU, so each rank calls itself a host, and
they talk through sockets: slow where much is said, but with the collectives, graphs and streams of a server whose ranks
have GPUs of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from unittest.mock import patch

import torch

ENVIRONMENT = {
    "SGLANG_ONE_VISIBLE_DEVICE_PER_PROCESS": "1",
    # Ranks on one GPU see each other's memory as taken.
    "SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK": "0",
    "NCCL_NET": "Socket",
    "NCCL_SOCKET_IFNAME": "lo",
}
# SGLang's own all-reduce writes into the memory of the other ranks' GPUs.
FLAG = "--disable-custom-all-reduce"


def share_gpus(gpu_of_rank: Sequence[int]) -> None:
    """From here on, ranks that SGLang starts from this process see one GPU each, and may share it.

    Args:
        gpu_of_rank: the number of each rank's GPU, among those that this process sees.
    """
    from sglang.srt.entrypoints import engine

    os.environ.update(ENVIRONMENT)
    choose = engine.maybe_reindex_device_id

    @contextlib.contextmanager
    def choose_shared(rank: int) -> Iterator[int]:
        with patch.dict(os.environ, NCCL_HOSTID=f"rank-{rank}"), choose(gpu_of_rank[rank]) as gpu:
            yield gpu

    engine.maybe_reindex_device_id = choose_shared


def main() -> None:
    ranks = int(sys.argv[sys.argv.index("--tp-size") + 1])
    share_gpus(list(itertools.islice(itertools.cycle(range(torch.cuda.device_count())), ranks)))
    sys.argv.append(FLAG)
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
