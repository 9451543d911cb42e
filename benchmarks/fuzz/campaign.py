"""Many requests by one seed, each answer judged, and the server looked at between them."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from benchmarks.fuzz.exchange import Request, send
from benchmarks.fuzz.laws import Fault, Guard, judge
from benchmarks.fuzz.requests_of import by_classes, by_description, raw
from benchmarks.fuzz.values import rarely
from benchmarks.local_server import Watched

CHECK_EVERY = 25  # scenes
AT_ONCE = 3
NEXT_SEED = 1_000_003
SHRINKS = 40  # requests to make one that failed smaller
# Not tried smaller: each try costs half a minute, or the server.
NOT_SHRUNK = ("no answer after", "every request")


class Campaign:
    """What was sent, and what was found.

    Args:
        server: the server to ask.
        without: names of fields that are never sent, to look past faults that are known.
    """

    def __init__(self, server: Watched, without: frozenset[str] = frozenset()) -> None:
        self.server = server
        self.without = without
        self.faults: dict[str, Fault] = {}
        self.statuses: Counter[str] = Counter()
        self.routes: Counter[str] = Counter()
        self.slowest_s = 0.0
        self.scenes = 0
        self.lost = False  # the server can't be asked any more
        self.recent: deque[Request] = deque(maxlen=AT_ONCE * CHECK_EVERY)

    @property
    def sent(self) -> int:
        return sum(self.statuses.values())

    def run(self, requests: int, number: int) -> None:
        """Send so many requests or a few more, drawn by the seed `number`; fewer where the server is lost."""
        url, without = self.server.url, self.without
        described = by_description(url, without)
        one = st.sampled_from([by_classes(without)] * 16 + [described, described, raw()]).flatmap(lambda drawn: drawn)
        scene = rarely(st.lists(one, min_size=2, max_size=AT_ONCE), st.lists(one, min_size=1, max_size=1), of=5)
        guard, target = Guard(self.server), self.sent + requests

        @seed(number)
        @settings(max_examples=requests, database=None, deadline=None, suppress_health_check=list(HealthCheck))
        @given(scene)
        def play(scene: list[Request]) -> None:
            # Nothing is raised in here: Hypothesis would try to make smaller what may not happen twice.
            if self.sent < target and not self.lost:
                self.play(scene, guard)

        self.lost = False
        # Hypothesis may end before: it doesn't send what it has sent already.
        while self.sent < target and not self.lost:
            play()
            number += NEXT_SEED
            play = seed(number)(play)
        if not self.lost:
            self.note(guard.check() + guard.rest())

    def play(self, scene: list[Request], guard: Guard) -> None:
        """Send the requests of a scene at once, and judge."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(lambda request: send(self.server.url, request), scene))
        self.recent.extend(scene)
        self.scenes += 1
        is_unanswered = False
        for request, answer in zip(scene, answers, strict=True):
            self.statuses["left" if answer.left else str(answer.status)] += 1
            self.routes[request.path.split("?")[0] if request.path.count("/") < 4 else "other"] += 1
            self.slowest_s = max(self.slowest_s, answer.seconds if not answer.left else 0)
            if fault := judge(request, answer):
                is_unanswered |= not answer.status
                self.note([fault], lambda smaller: judge(smaller, send(self.server.url, smaller)), request)
        if is_unanswered or self.scenes % CHECK_EVERY == 0:
            found = guard.check()
            for fault in found:
                fault.curl = [request.curl() for request in self.recent]
            self.note(found)
            self.lost = bool(found)

    def note(
        self, found: list[Fault], again: Callable[[Request], Fault | None] | None = None, request: Request | None = None
    ) -> None:
        """Count faults; make the request of a new kind smaller."""
        for fault in found:
            if known := self.faults.get(fault.kind):
                known.count += 1
                continue
            self.faults[fault.kind] = fault
            if again and request and not fault.law.startswith(NOT_SHRUNK):
                fault.curl = [shrink(request, fault.kind, again).curl()]

    def summary(self) -> dict[str, Any]:
        return {
            "requests": self.sent,
            "statuses": dict(sorted(self.statuses.items())),
            "routes": len(self.routes),
            "slowest_s": round(self.slowest_s, 2),
            "faults": sum(fault.count for fault in self.faults.values()),
            "kinds": len(self.faults),
        }


def shrink(request: Request, kind: str, judge_again: Callable[[Request], Fault | None]) -> Request:
    """A smaller body with which the same law is broken, by leaving out one part after another."""
    left = SHRINKS
    body = request.body
    if body is None:
        return request
    options = {"headers": request.headers, "leave_after": request.leave_after}
    progress = True
    while progress and left > 0:
        progress = False
        for smaller in without_one(body):
            left -= 1
            tried = Request.of_json(request.method, request.path, smaller, **options)
            found = judge_again(tried)
            if found and found.kind == kind:
                request, body, progress = tried, smaller, True
                break
            if left <= 0:
                break
    return request


def without_one(body: Any) -> Iterator[Any]:
    """The body without one of its members or elements, outer ones first."""
    if isinstance(body, dict):
        for name in body:
            yield {other: value for other, value in body.items() if other != name}
        for name, value in body.items():
            for smaller in without_one(value):
                yield {**body, name: smaller}
    elif isinstance(body, list):
        for at in range(len(body)):
            yield body[:at] + body[at + 1 :]
        for at, value in enumerate(body):
            for smaller in without_one(value):
                yield [*body[:at], smaller, *body[at + 1 :]]
    elif isinstance(body, str) and len(body) > 40:
        yield body[: len(body) // 2]


def report(faults: dict[str, Fault]) -> str:
    """The faults for people: the law, what happened, and a request to see it again."""
    texts = []
    for fault in faults.values():
        last = fault.curl[-1] if fault.curl else ""
        texts.append(f"{fault.law}: {fault.where} ({fault.count} times)\n    {fault.detail[:400]}\n    {last[:3000]}")
    return "\n".join(texts)


def timed(call: Callable[[], None]) -> float:
    begin = time.monotonic()
    call()
    return round(time.monotonic() - begin, 1)


def dump(faults: dict[str, Fault]) -> list[dict[str, Any]]:
    """The faults as JSON takes them."""
    return json.loads(json.dumps([vars(fault) for fault in faults.values()], default=str))
