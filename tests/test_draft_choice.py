"""Drafts go on where they bring more tokens a second, and cost next to nothing where they don't."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import pytest

from sgl_proxythinker.speculation.draft_choice import DraftChoice, size_of

DRAFTS = 3
MINUTE_S, PREFILL_S = 60.0, 0.2

Seconds = Callable[[int, int], float]  # of a step, by requests and drafts
Acceptance = Callable[[float], float]  # of each draft, by the time


def serve(
    seconds: Seconds, acceptance: Acceptance, requests: Callable[[float], int], prefill_every: int = 0
) -> tuple[float, dict[float, int]]:
    """A minute of a server that chooses.

    Returns:
        Its time over that of a server without drafts that writes as much; the drafts of the steps by their begin.
    """
    choice, at_random = DraftChoice(DRAFTS), random.Random(5)
    now_s, without_s, used = 0.0, 0.0, {}
    results: deque[list[int]] = deque()
    while now_s < MINUTE_S:
        batch = requests(now_s)
        if prefill_every and len(used) % prefill_every == 0:
            choice.interrupt()
            now_s += PREFILL_S
            without_s += PREFILL_S
        if choice.is_due:
            choice.follow(choice.plan())
        drafts = choice.choose(batch, now_s)
        used[now_s] = drafts
        correct = [0] * batch
        for request in range(batch if drafts else 0):
            while correct[request] < drafts and at_random.random() < acceptance(now_s):
                correct[request] += 1
        results.append(correct)
        if len(results) > 1:  # the scheduler is a step ahead of its results
            choice.resolve(results.popleft())
        now_s += seconds(batch, drafts) * at_random.uniform(0.95, 1.05)
        without_s += seconds(batch, 0) * (1 + sum(correct) / batch)
    return now_s / without_s, used


def large(requests: int, drafts: int) -> float:
    """32B and two 7B on a large GPU, roughly: arithmetic bounds a verify of many rows."""
    plain = 0.023 + 1e-4 * requests
    return plain + drafts * 0.004 + (drafts > 0) * 0.004 + 2.5e-4 * requests * drafts


def small(requests: int, drafts: int) -> float:
    """A base that is hardly larger than its drafter."""
    return 0.007 + drafts * 0.004 + 5e-5 * requests * (1 + drafts)


def ramp(now_s: float) -> int:
    """1 to 128 and back."""
    return max(1, round(128 * (1 - abs(now_s / MINUTE_S * 2 - 1))))


@pytest.mark.parametrize("seconds", [large, small])
@pytest.mark.parametrize("acceptance", [0.0, 0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("requests", [1, 8, 64])
def test_no_load_is_slower_than_without_drafts(seconds, acceptance, requests):
    """Kills: a way that is kept because it is there; trials that never end."""
    over, used = serve(seconds, lambda _: acceptance, lambda _: requests)
    tokens = sum(acceptance**right for right in range(DRAFTS + 1))
    best = min(1.0, seconds(requests, DRAFTS) / tokens / seconds(requests, 0))
    assert over < 1.05
    assert over < best * 1.06 or abs(best - 1) < 0.06, "what drafts bring is taken"
    assert len(set(used.values())) == 2, "both ways are tried"


@pytest.mark.parametrize("seconds", [large, small])
@pytest.mark.parametrize("acceptance", [0.1, 0.5, 0.9])
def test_a_ramp_to_128_and_back(seconds, acceptance):
    over, _ = serve(seconds, lambda _: acceptance, ramp)
    assert over < 1.05


def test_acceptance_that_falls_in_mid_load():
    over, used = serve(large, lambda now_s: 0.9 if now_s < MINUTE_S / 2 else 0.0, lambda _: 8)
    late = [drafts for now_s, drafts in used.items() if now_s > MINUTE_S / 2 + 1]
    early = [drafts for now_s, drafts in used.items() if 1 < now_s < MINUTE_S / 2]
    assert over < 0.9
    assert early.count(DRAFTS) > 0.9 * len(early) and late.count(0) > 0.9 * len(late)


def test_acceptance_that_comes_back_is_found():
    _, used = serve(small, lambda now_s: 0.0 if now_s < 20 else 0.95, lambda _: 1)
    late = [drafts for now_s, drafts in used.items() if now_s > 55]  # the last trial before was 28 s ago
    assert late.count(DRAFTS) > 0.9 * len(late)


def test_two_ways_that_are_the_same_do_not_take_turns():
    acceptance = 0.5

    def same(requests: int, drafts: int) -> float:
        return 0.02 * sum(acceptance**right for right in range(drafts + 1))

    _, used = serve(same, lambda _: acceptance, lambda _: 32)
    ways = list(used.values())
    assert sum(one != other for one, other in zip(ways, ways[1:], strict=False)) < 12, "trials, and little else"


def test_where_prompts_are_read_all_the_time_it_learns_all_the_same():
    over, _ = serve(small, lambda _: 0.1, lambda _: 8, prefill_every=6)
    assert over < 1.05


def test_what_can_not_be_timed_goes_without_drafts():
    over, used = serve(small, lambda _: 0.1, lambda _: 8, prefill_every=2)
    late = [drafts for now_s, drafts in used.items() if now_s > MINUTE_S / 2]
    assert over < 1.05 and late.count(0) > 0.9 * len(late)


def test_ranks_that_follow_a_table_choose_alike():
    """Kills: a choice by what only one rank has seen."""
    first, other = DraftChoice(DRAFTS), DraftChoice(DRAFTS)
    at_random = random.Random(1)
    for step in range(2000):
        if first.is_due:
            assert other.is_due
            table = first.plan()
            first.follow(dict(table))
            other.follow(dict(table))
        batch = at_random.choice([1, 2, 7, 64, 100])
        chosen = first.choose(batch, step * 0.01 * at_random.random())
        assert other.choose(batch, step * 3.0) == chosen
        first.resolve([at_random.randrange(DRAFTS + 1)] * batch)


def test_batches_are_told_apart_by_powers_of_two():
    assert [size_of(requests) for requests in (1, 2, 3, 4, 5, 8, 9, 128)] == [0, 1, 2, 2, 3, 3, 4, 7]
