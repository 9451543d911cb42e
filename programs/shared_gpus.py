"""SGLang with more ranks than GPUs, to try a layout where there are too few: `launch_server`, and its arguments.

    python -m programs.shared_gpus --plugin proxythinker --tp-size 4 --proxy-placement dedicated \\
        --max-total-tokens 8192 --model-path ...

The ranks take the GPUs in turn. NCCL takes no two ranks of a host on one GPU, so each rank calls itself a host, and
they talk through sockets: slow where much is said, but with the collectives, graphs and streams of a server whose ranks
have GPUs of their own. Each rank takes what is free for keys and values: say how many tokens, or the first takes all.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
from collections.abc import Iterator, Sequence

import torch

# Processes on one GPU see each other's memory as taken: less is free on one GPU than on another.
MEMORY_IS_SHARED = {"SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK": "0"}
ENVIRONMENT = MEMORY_IS_SHARED | {
    "SGLANG_ONE_VISIBLE_DEVICE_PER_PROCESS": "1",
    "NCCL_NET": "Socket",
    "NCCL_SOCKET_IFNAME": "lo",
}
# SGLang's own writes into the memory of the other ranks' GPUs.
NO_CUSTOM_ALL_REDUCE = "--disable-custom-all-reduce"


def share_gpus(gpus: Sequence[int]) -> None:
    """From here on, each rank that SGLang starts from this process sees one GPU, which it may share.

    Args:
        gpus: those of the ranks 0, 1, ...; after the last one comes the first again. Numbers among those that this
            process sees.
    """
    from sglang.srt.entrypoints import engine

    os.environ.update(ENVIRONMENT)
    choose = engine.maybe_reindex_device_id

    @contextlib.contextmanager
    def choose_shared(number: int) -> Iterator[int]:
        """Around SGLang's choice of what a rank's process sees; `number` is the GPU that the rank would have."""
        os.environ["NCCL_HOSTID"] = f"{os.getpid()}-{number}"  # nodes that are tried on one host number theirs alike
        with choose(gpus[number % len(gpus)]) as gpu:
            yield gpu

    engine.maybe_reindex_device_id = choose_shared


def main() -> None:
    if not torch.cuda.device_count():
        sys.exit("there is no GPU to share; on a CPU ranks need none: python -m sglang.launch_server")
    share_gpus(range(torch.cuda.device_count()))
    sys.argv.append(NO_CUSTOM_ALL_REDUCE)
    # Ranks begin with what this process runs as `__main__`, which may be a script that has changed something first.
    runpy.run_module("sglang.launch_server", run_name="__main__")


if __name__ == "__main__":
    main()
