"""Write down once a second what PyTorch's allocator has handed out on the GPU, in every process that uses it.

Python imports a module of this name at its start, if its folder is on PYTHONPATH. A line of $ALLOCATED_LOG is the time
(seconds since the epoch), the process' id, and the bytes that are allocated and reserved. Beside a soak it tells what a
card's memory can't: whether tensors are left behind, or only blocks that the allocator keeps.
"""

import os
import sys
import threading
import time


def watch(path: str) -> None:
    while True:
        time.sleep(1)
        torch = sys.modules.get("torch")
        try:
            if torch is None or not torch.cuda.is_initialized():
                continue
            allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        except (AttributeError, RuntimeError):  # it is being imported, or the card is going
            continue
        if allocated:
            with open(path, "a") as log:
                log.write(f"{time.time():.1f} {os.getpid()} {allocated} {reserved}\n")


if os.environ.get("ALLOCATED_LOG"):
    threading.Thread(target=watch, args=(os.environ["ALLOCATED_LOG"],), daemon=True).start()
