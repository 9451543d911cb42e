"""What the CUDA graphs and kernels of a model read from and write to while they run, of each model its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sgl_proxythinker.models.groups import swapped
from sgl_proxythinker.upstream.runtime import GraphSharedOutput, get_resources, input_buffers


class GraphBuffers:
    """One model's memory pool of graphs, their inputs and logits, and the workspaces of kernels.

    Upstream shares them between all models of a process, which is right as long as no two of them run at the same time.
    """

    def __init__(self) -> None:
        self._memory_pool: Any = None
        self._logits: Any = None
        self._inputs: dict = {}
        self._workspaces: dict = {}

    @property
    def logits_bytes(self) -> int:
        """Bytes of the logits that the graphs write; 0 where none were captured."""
        buffers = self._logits._logits_buffers.values() if self._logits else ()
        return sum(buffer.numel() * buffer.element_size() for buffer in buffers)

    @contextmanager
    def own(self) -> Iterator[None]:
        """While it is open, what is captured or made finds these in place of the process' own."""
        resources = get_resources()
        with (
            swapped(resources, "graph_memory_pool", self._memory_pool),
            swapped(resources, "buffers", self._workspaces),
            swapped(GraphSharedOutput, "_process_shared", self._logits),
            swapped(input_buffers, "_forward_input_buffer_pool", self._inputs),
        ):
            yield
            self._memory_pool, self._logits = resources.graph_memory_pool, GraphSharedOutput._process_shared
