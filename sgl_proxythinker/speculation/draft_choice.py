"""Whether drafts pay, for each size of batch, by the times and the acceptance that are seen: `--proxy-speculate auto`.

A step with drafts takes longer and brings more tokens. Both ways are measured while they serve: the one that brings
more tokens a second goes on, and the other is tried again now and then. Plain Python: it knows no model and no device.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import fmean, median

from sgl_proxythinker.log_rate import sparing_logger

logger = sparing_logger(__name__)

PERIOD = 8  # steps that a choice holds for
SETTLING = 2  # steps after another choice or another size whose times are of both
LEAST = 4  # steps that say something: one may have been stopped short, or have had no luck with its drafts
REMEMBERED = 64
LONGEST_TRIAL = 3  # periods, where steps are disturbed
LONGEST_IN_THE_DARK = 16  # periods; then a step goes without drafts until the next trial
WEIGHT = 0.25  # of what a period brought in what is known
# The other way must be better by this much: two that are nearly the same don't take turns.
HYSTERESIS = 1.03
# Periods from one trial of the other way to the next. They double while trials lose: eight steps of twice the time in
# every 256 are 3 %, and soon less.
SOONEST_TRIAL, LATEST_TRIAL = 32, 512


@dataclass
class _Way:
    """A number of drafts at one size of batch."""

    seconds: float | None = None  # of a step
    tokens: float | None = None  # of a request in a step
    times: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))  # not taken in yet
    counts: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def learn(self) -> None:
        """Take in what was seen since."""
        if len(self.times) >= LEAST:
            self.seconds = _moved(self.seconds, median(self.times))
            self.times.clear()
        if len(self.counts) >= LEAST:
            self.tokens = _moved(self.tokens, fmean(self.counts))
            self.counts.clear()

    def forget(self, is_plain: bool) -> None:
        """What was known is from another time. A step without drafts brings one token at any."""
        self.seconds, self.tokens = None, 1.0 if is_plain else None

    @property
    def is_known(self) -> bool:
        return self.seconds is not None and self.tokens is not None

    @property
    def rate(self) -> float:
        """Tokens of a request per second."""
        return self.tokens / self.seconds if self.tokens and self.seconds else 0.0


@dataclass
class _Size:
    """Batches of about one size."""

    ways: dict[int, _Way]
    chosen: int
    tried: int | None = None  # the other way, while it is tried
    until_trial: int = 0  # periods; the first one is at once
    wait: int = SOONEST_TRIAL
    more_periods: int = 0  # that a trial may last if it can't be timed in its first
    in_the_dark: int = 0  # periods that ended with nothing known of what is chosen

    @property
    def current(self) -> int:
        return self.chosen if self.tried is None else self.tried


class DraftChoice:
    """Chooses between no draft and `drafts` of them.

    `choose` is asked for each step in turn. Ranks that must choose alike share the table of one of them where
    `is_due`.

    Args:
        drafts: of a cycle that has any.
    """

    def __init__(self, drafts: int):
        self._drafts = drafts
        self._sizes: dict[int, _Size] = {}
        self._table: dict[int, int] = {}
        self._step = 0
        self._used: set[int] = set()  # sizes of this period
        self._last: tuple[int, int] | None = None
        self._since = 0  # steps like the last one
        self._began_s = 0.0
        self._unresolved: deque[tuple[int, int] | None] = deque()

    @property
    def is_due(self) -> bool:
        """Whether a period begins with the next step."""
        return self._step % PERIOD == 0

    def plan(self) -> dict[int, int]:
        """The drafts of each size of batch for the next period, by what was seen until now."""
        for size in self._used:
            self._review(size, self._sizes[size])
        self._used.clear()
        return {size: state.current for size, state in self._sizes.items()}

    def follow(self, table: dict[int, int]) -> None:
        """Use this table from here on."""
        self._table = table

    def choose(self, requests: int, now_s: float) -> int:
        """Drafts of the step that begins now, of a batch of so many requests."""
        size = size_of(requests)
        drafts = self._table.get(size)
        if drafts is None:
            drafts = self._table[size] = self._nearest(size)
        if size not in self._sizes:
            self._sizes[size] = _Size({0: _Way(tokens=1.0), self._drafts: _Way()}, drafts)
        self._time((size, drafts), now_s)
        self._used.add(size)
        self._unresolved.append((size, drafts))
        self._step += 1
        return drafts

    def skip(self) -> None:
        """A step of decoding that there was no choice for."""
        self._unresolved.append(None)
        self.interrupt()

    def interrupt(self) -> None:
        """Something else runs: the time until the next step is none of a step's."""
        self._last = None

    def resolve(self, correct_drafts: list[int]) -> None:
        """Take in how many drafts of each request were right, of the steps in their order."""
        step = self._unresolved.popleft()
        if step is not None and step[1]:
            self._sizes[step[0]].ways[step[1]].counts.append(1 + fmean(correct_drafts))

    def _time(self, step: tuple[int, int], now_s: float) -> None:
        self._since = self._since + 1 if step == self._last else 0
        if self._since > SETTLING:
            self._sizes[step[0]].ways[step[1]].times.append(now_s - self._began_s)
        self._last, self._began_s = step, now_s

    def _nearest(self, size: int) -> int:
        """What is chosen at the size next to it; with nothing known, drafts."""
        if not self._table:
            return self._drafts
        return self._table[min(self._table, key=lambda other: (abs(other - size), other))]

    def _review(self, size: int, state: _Size) -> None:
        """What the next period of a size does."""
        for way in state.ways.values():
            way.learn()
        other = next(drafts for drafts in state.ways if drafts != state.chosen)
        mine, its = state.ways[state.chosen], state.ways[other]
        tried, state.tried = state.tried, None
        if not mine.is_known:
            state.in_the_dark += 1
            if state.chosen and state.in_the_dark > LONGEST_IN_THE_DARK:
                # No steps follow each other undisturbed: what is not known can't be said to pay.
                state.chosen, state.wait, state.until_trial = 0, LATEST_TRIAL, LATEST_TRIAL
            return
        state.in_the_dark = 0
        if its.is_known and its.rate > mine.rate * HYSTERESIS:
            logger.info(
                "proxythinker: batches of %s: %d drafts, not %d: %.1f tokens/s of a request, not %.1f",
                _named(size), other, state.chosen, its.rate, mine.rate,
            )  # fmt: skip
            state.chosen, state.wait, state.until_trial = other, SOONEST_TRIAL, SOONEST_TRIAL
        elif tried is not None and not its.is_known and state.more_periods:
            state.tried, state.more_periods = other, state.more_periods - 1
        elif tried is not None:
            state.wait = min(2 * state.wait, LATEST_TRIAL)
            state.until_trial = state.wait
        else:
            state.until_trial -= 1
            if state.until_trial <= 0:
                its.forget(is_plain=not other)
                state.tried, state.more_periods = other, LONGEST_TRIAL - 1


def _moved(known: float | None, seen: float) -> float:
    return seen if known is None else known + WEIGHT * (seen - known)


def size_of(requests: int) -> int:
    """Batches are told apart by powers of two: 1, 2, 3 to 4, 5 to 8, ..."""
    return (requests - 1).bit_length()


def _named(size: int) -> str:
    most = 1 << size
    return str(most) if size < 2 else f"{most // 2 + 1} to {most}"
