"""What holds of everything that is computed for a step on a GPU."""

from __future__ import annotations

import contextlib

import torch

from servers import ON_GPU


@contextlib.contextmanager
def no_waiting():
    """On a GPU, an error where the host waits for the device."""
    if ON_GPU:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if ON_GPU:
            torch.cuda.set_sync_debug_mode("default")
