"""Decode graphs of the small models, captured on a part of the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sgl_proxythinker.models.groups import swapped
from sgl_proxythinker.models.sm_partition import MOST_ROWS, stream_on
from sgl_proxythinker.upstream.runtime import DecodeCudaGraphRunner


@contextmanager
def captured_on(sms: int | None, gpu_id: int) -> Iterator[None]:
    """While it is open, graphs of up to `MOST_ROWS` rows of logits are captured on a part of the GPU.

    Args:
        sms: how many SMs; None, or where there are no such streams: all.
        gpu_id: the model's.
    """
    stream = None if sms is None else stream_on(sms, gpu_id)
    if stream is None:
        yield
        return
    capture = DecodeCudaGraphRunner.capture_one_shape

    def capture_one_shape(runner: DecodeCudaGraphRunner, size: int, *args: Any, **kwargs: Any) -> None:
        if size * runner.captured_req_width > MOST_ROWS:
            capture(runner, size, *args, **kwargs)
            return
        stream.wait_stream(torch.cuda.current_stream())
        with swapped(runner.backend, "_capture_stream", stream), torch.cuda.stream(stream):
            capture(runner, size, *args, **kwargs)
        torch.cuda.current_stream().wait_stream(stream)

    with swapped(DecodeCudaGraphRunner, "capture_one_shape", capture_one_shape):
        yield
