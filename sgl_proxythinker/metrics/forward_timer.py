"""Times of a function that launches work on a GPU, without anyone waiting for the GPU."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

# Calls of a phase from one that is timed to the next. A prime: in a cycle of speculation a model runs once, or once for
# each draft, and each of these runs is to have its turn.
EVERY = 17
PREFILL, DECODE, VERIFY = PHASES = ("prefill", "decode", "verify")


class _UnderWay(NamedTuple):
    start: torch.cuda.Event
    end: torch.cuda.Event
    phase: str


class ForwardTimer:
    """Tells how long one of `EVERY` calls in each phase took, on the stream that is current when it is called.

    On a GPU events lie around what a call launches; they are asked for when the next call is timed, and only those that
    have happened are read. On a CPU a call is over when it returns.

    Args:
        forward: takes SGLang's `ForwardBatch` first.
        tell: of each phase, takes seconds.
        device: "cuda" or "cpu".
    """

    def __init__(self, forward: Callable[..., Any], tell: Mapping[str, Callable[[float], None]], device: str):
        self._forward = forward
        self._tell = tell
        self._is_on_gpu = device == "cuda"
        self._calls: Counter[str] = Counter()
        self._under_way: deque[_UnderWay] = deque()

    def __call__(self, forward_batch: Any, *args: Any, **kwargs: Any) -> Any:
        phase = phase_of(forward_batch)
        calls = self._calls[phase]
        self._calls[phase] = calls + 1
        if calls % EVERY:
            return self._forward(forward_batch, *args, **kwargs)
        if self._is_on_gpu:
            return self._with_events(phase, forward_batch, *args, **kwargs)
        start = time.perf_counter()
        result = self._forward(forward_batch, *args, **kwargs)
        self._tell[phase](time.perf_counter() - start)
        return result

    def _with_events(self, phase: str, *args: Any, **kwargs: Any) -> Any:
        while self._under_way and self._under_way[0].end.query():
            done = self._under_way.popleft()
            self._tell[done.phase](done.start.elapsed_time(done.end) / 1000)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        result = self._forward(*args, **kwargs)
        end.record()
        self._under_way.append(_UnderWay(start, end, phase))
        return result


def phase_of(forward_batch: Any) -> str:
    """What a model does in a batch: reads prompts, one token of each request, or a chain of each."""
    mode = forward_batch.forward_mode
    if mode.is_target_verify():
        return VERIFY
    return DECODE if mode.is_decode() else PREFILL
