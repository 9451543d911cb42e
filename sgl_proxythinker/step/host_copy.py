"""A step's small results on their way to the host, without anyone waiting for them in the step."""

from __future__ import annotations

from typing import NamedTuple

import torch


class HostCopy(NamedTuple):
    """A tensor on the host; filled once `copied` has happened."""

    tensor: torch.Tensor
    copied: torch.cuda.Event | None  # None: it was on the host from the start

    @classmethod
    def start(cls, tensor: torch.Tensor) -> HostCopy:
        """Queue the copy on the current stream. `tensor`: any shape and dtype, on the model's device; read only."""
        if not tensor.is_cuda:
            return cls(tensor, None)
        # Pinned, or the copy would make the host wait here. An event of its own: SGLang's `copy_done` exists under
        # overlap scheduling only.
        on_host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        on_host.copy_(tensor, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return cls(on_host, copied)

    def read(self) -> list:
        """The values as nested lists; waits until they are there."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.tensor.tolist()
