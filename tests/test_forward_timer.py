"""Times are told by phase, of a sample of the calls, and nobody waits for a GPU to tell them."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from sgl_proxythinker.metrics import forward_timer
from sgl_proxythinker.metrics.forward_timer import DECODE, EVERY, PHASES, PREFILL, VERIFY, ForwardTimer


def batch(phase: str) -> SimpleNamespace:
    mode = SimpleNamespace(is_target_verify=lambda: phase == VERIFY, is_decode=lambda: phase == DECODE)
    return SimpleNamespace(forward_mode=mode)


def told(into: list) -> dict:
    return {phase: lambda seconds, phase=phase: into.append((phase, seconds)) for phase in PHASES}


def test_one_of_so_many_calls_of_each_phase_is_timed(monkeypatch):
    """Kills: a count over all phases, which a rhythm of prompts and answers meets always in the same one."""
    clock = iter(range(10_000))
    monkeypatch.setattr(forward_timer.time, "perf_counter", lambda: next(clock))
    seen: list = []
    timer = ForwardTimer(lambda *args, **kwargs: (args[1:], kwargs), told(seen), "cpu")
    for _ in range(2 * EVERY):
        assert timer(batch(PREFILL), 1, two=2) == ((1,), {"two": 2})
        for _ in range(EVERY - 1):
            timer(batch(DECODE))
    assert Counter(phase for phase, _ in seen) == {PREFILL: 2, DECODE: 2 * (EVERY - 1)}
    assert {seconds for _, seconds in seen} == {1}


@pytest.mark.parametrize("drafts", range(8))
def test_each_forward_of_a_cycle_has_its_turn(drafts, monkeypatch):
    """Kills: a stride that the number of drafts divides, by which one draft of a cycle would stand for all."""
    timed: set[int] = set()
    place = 0
    timer = ForwardTimer(lambda _: None, dict.fromkeys(PHASES, lambda seconds: timed.add(place)), "cpu")
    for _ in range(EVERY * (drafts + 1)):
        for place in range(drafts + 1):  # noqa: B007 -- `timed.add` reads it
            timer(batch(DECODE))
    assert timed == set(range(drafts + 1))


class _Event:
    """In the place of a CUDA event: it happens when the test says so."""

    happened = False
    made: list = []

    def __init__(self, enable_timing: bool):
        assert enable_timing
        self.made.append(self)
        self.is_recorded = False

    def record(self):
        self.is_recorded = True

    def query(self) -> bool:
        assert self.is_recorded
        return self.happened

    def elapsed_time(self, end) -> float:
        assert self.happened and end.happened
        return 1500.0


def test_events_that_have_not_happened_are_left_for_later(monkeypatch):
    """Kills: a time that is read, and waited for, while the GPU works."""
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    monkeypatch.setattr(_Event, "made", [])
    seen: list = []
    timer = ForwardTimer(lambda _: None, told(seen), "cuda")
    for _ in range(3 * EVERY):
        timer(batch(VERIFY))
    assert len(_Event.made) == 6 and not seen
    for event in _Event.made[:2]:
        event.happened = True
    for _ in range(EVERY):
        timer(batch(VERIFY))
    assert seen == [(VERIFY, 1.5)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU's events need a GPU")
def test_a_gpus_own_time_is_told():
    """Kills: the time of launching, events on another stream than the work, and waiting."""
    work = torch.randn(4096, 4096, device="cuda")
    side = torch.cuda.Stream()
    seen: list = []

    def forward(_):
        for _ in range(50):
            torch.mm(work, work)

    timer = ForwardTimer(forward, told(seen), "cuda")
    with torch.cuda.stream(side):
        forward(None)
        torch.cuda.synchronize()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        forward(None)
        end.record()
        timer(batch(DECODE))
        assert not seen and not end.query(), "nothing has waited"
        torch.cuda.synchronize()
        for _ in range(EVERY):
            timer(batch(DECODE))
    [(phase, seconds)] = seen
    assert phase == DECODE
    assert seconds > start.elapsed_time(end) / 2000, "the host has launched it in a hundredth of that"
