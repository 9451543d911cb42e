"""CUDA graphs of a verify: what SGLang captures for its own algorithms only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sgl_proxythinker.models.groups import swapped
from sgl_proxythinker.upstream.runtime import CaptureHiddenMode, DecodeCudaGraphRunner, base_runner
from sgl_proxythinker.upstream.speculation import DFlashVerifyInput


def chain_input(tokens: Any, positions: Any, each: int) -> DFlashVerifyInput:
    """SGLang's input of a verify whose tokens follow each other. Without a mask attention is causal.

    Args:
        tokens: [B * each] integers; None while graphs are captured.
        positions: [B * each] integers, or None.
        each: tokens of a request.
    """
    return DFlashVerifyInput(tokens, positions, each, capture_hidden_mode=CaptureHiddenMode.NULL)


class VerifyGraphRunner(DecodeCudaGraphRunner):
    """Graphs of chains: upstream's has inputs of its own algorithms, and none of ours.

    Where a chain without a mask is read, the scheduler's tables are read before a replay, as for upstream's own chains
    without one (DFlash's). It says so: what waits for that need not wait for the replay.
    """

    def get_spec_info(self, num_tokens: int) -> DFlashVerifyInput:
        return chain_input(None, None, self.captured_req_width)

    def load_batch(self, *args: Any, **kwargs: Any) -> None:
        super().load_batch(*args, **kwargs)
        was_read = torch.cuda.Event()
        was_read.record()
        self.model_runner.war_fastpath_read_done_event = was_read


@contextmanager
def capturing_chains(runner: Any) -> Iterator[None]:
    """While it is open, the kernels of a model are warmed up and its graphs captured with chains as their input.

    Args:
        runner: the model's `ModelRunner`, with our algorithm.
    """

    def dummy(algorithm: Any, server_args: Any, mask: Any, each: int, is_draft_worker: bool) -> DFlashVerifyInput:
        return chain_input(None, None, each)

    runner._decode_cuda_graph_runner_cls = lambda: VerifyGraphRunner
    try:
        with swapped(base_runner, "create_dummy_verify_input", dummy):
            yield
    finally:
        del runner._decode_cuda_graph_runner_cls
