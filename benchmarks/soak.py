"""Half an hour of mixed chats on one server: does memory grow, is anything held at the end, are tokens the same?

    python -m benchmarks.soak --minutes 30                                        # the tiny family, on this machine
    python -m benchmarks.soak --minutes 7 --at-once 64 --models weightless:7B:3B --out results/soak.jsonl   # a GPU
    python -m benchmarks.soak --minutes 30 --url http://127.0.0.1:30000 --pid 4711

Chats with 2,000 different pictures and without, of one to three turns, both strengths, streams, n, grammars; clients
that go at any moment, aborts by id, and requests that must be refused. It holds when every process's memory is flat
after the first two fifths of the time (below), nothing runs, waits or holds KV at the end, fixed prompts have the
tokens that they had, right requests were answered and wrong ones refused.

Memory is flat when it grows by less than 4 KiB a request, with 97.5 % confidence: what a request holds and could leave
behind is its picture, 20 KiB and more as it is decoded, so one in five left behind would show. Every picture is asked
about once before the time begins, so that caches of embeddings are full. The last line printed is JSON; the exit code
is 1 where something did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from benchmarks.conditions import ask_conditions
from benchmarks.fuzz.exchange import Answer, Request, send
from benchmarks.fuzz.laws import fixed_tokens
from benchmarks.lines import append_line
from benchmarks.local_server import ADMIN_KEY, ON_GPU, Watched, named_models, serving, watch
from benchmarks.memory_growth import Sampler, growth
from benchmarks.soak_requests import Kind, draw, fill_requests, first_requests

SETTLED_AFTER = 0.4  # of the time
MOST_KIB_A_REQUEST = 4.0
REST_WITHIN_S = 60
FIRST_WITHIN_S = 300


class Soak:
    """Clients that ask until the time is over."""

    def __init__(self, server: Watched, args: argparse.Namespace) -> None:
        self.server, self.args = server, args
        self.outcomes: Counter[str] = Counter()
        self.wrong: dict[str, str] = {}
        self._lock = threading.Lock()

    def run(self) -> dict[str, Any]:
        """Ask for `args.minutes`; what was seen, and what of it did not hold."""
        for request in first_requests(self.args.pictures):
            self._first(request)
        self._fill()
        models = requests.get(f"{self.server.url}/v1/models", timeout=30).json()
        self._context_length = models["data"][0]["max_model_len"]
        expected = fixed_tokens(self.server.url)
        sampler = Sampler(self.server)
        sampler.start()
        begin = time.monotonic()
        deadline = begin + 60 * self.args.minutes
        clients = [
            threading.Thread(target=self._client, args=(number, deadline)) for number in range(self.args.at_once)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        seconds = time.monotonic() - begin
        sampler.end()
        load = self._rest()
        asked = sum(self.outcomes.values())
        memory = {name: growth(rows, SETTLED_AFTER * seconds) for name, rows in sampler.rows.items()}
        bound = MOST_KIB_A_REQUEST / 1024 * asked / (seconds / 60)
        return {
            "requests": asked,
            "seconds": round(seconds),
            "outcomes": dict(sorted(self.outcomes.items())),
            "wrong": self.wrong,
            "memory": memory,
            "bound_mib_a_minute": round(bound, 3),
            "growing": [name for name, row in memory.items() if row["upper"] is None or row["upper"] > bound],
            "load_at_rest": load,
            "tokens_unchanged": fixed_tokens(self.server.url) == expected,
            "ended": self.server.ended(),
        }

    def _first(self, request: Request) -> None:
        url = self.server.url + request.path
        requests.post(url, data=request.data, headers=request.headers, timeout=FIRST_WITHIN_S).raise_for_status()

    def _fill(self) -> None:
        """Every picture once, greedy and sampled side by side: the caches of embeddings are as full as they will be."""
        with ThreadPoolExecutor(self.args.at_once) as threads:
            for done in threads.map(self._first, fill_requests(self.args.pictures)):
                assert done is None

    def _client(self, number: int, deadline: float) -> None:
        chance = random.Random(f"{self.args.seed}.{number}")
        turn = number
        while time.monotonic() < deadline and len(self.wrong) < 20:
            kind, request = draw(chance, turn, self.args.pictures, self._context_length)
            if kind is Kind.ABORTED:
                threading.Timer(chance.uniform(0, 1), self._abort, (request.body["rid"],)).start()
            self._note(kind, request, send(self.server.url, request))
            turn += self.args.at_once

    def _abort(self, rid: str) -> None:
        key = {"Authorization": f"Bearer {self.args.admin_key}"}
        with contextlib.suppress(requests.RequestException):
            requests.post(f"{self.server.url}/abort_request", json={"rid": rid}, headers=key, timeout=30)

    def _note(self, kind: Kind, request: Request, answer: Answer) -> None:
        outcome = "left" if answer.left else str(answer.status)
        with self._lock:
            self.outcomes[f"{kind.value}: {outcome}"] += 1
            if not kind.allows(answer):
                about = f"{answer.error} {answer.text[:300]} {request.curl()[:1500]}"
                self.wrong.setdefault(f"{kind.value}: {outcome}", about)

    def _rest(self) -> dict[str, int]:
        deadline = time.monotonic() + REST_WITHIN_S
        while any((load := self.server.load()).values()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return load


def main() -> None:
    args = parse_arguments()
    where = ask_conditions(args.commit)
    with asked_server(args) as server:
        print(f"  asking {server.url}, {args.at_once} at once, for {args.minutes:g} minutes", flush=True)
        found = Soak(server, args).run()
    names = ("minutes", "at_once", "pictures", "models", "seed")
    line = {"benchmark": "soak", "setting": {name: getattr(args, name) for name in names}, "conditions": where, **found}
    if args.out:
        append_line(args.out, line)
    print_table(found)
    print(json.dumps({"name": "soak", "results": [line]}))
    held = found["tokens_unchanged"] and not any(found["load_at_rest"].values())
    sys.exit(not held or bool(found["wrong"] or found["growing"] or found["ended"]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--at-once", type=int, default=64 if ON_GPU else 4, help="clients (%(default)s)")
    parser.add_argument("--pictures", type=int, default=2_000, help="different ones (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", default="family", help="family, random, or weightless:BASE:PROXY (%(default)s)")
    parser.add_argument("--url", help="of a server that runs; default: one of its own")
    parser.add_argument("--pid", type=int, help="of that server's main process, so that its memory is read")
    parser.add_argument("--admin-key", default=ADMIN_KEY, help="of that server, for aborts by id")
    parser.add_argument("--server-flags", default="", metavar="'--flag value ...'", help="further ones")
    parser.add_argument("--out", type=Path, help="JSON lines, appended")
    parser.add_argument("--commit", help="default: git's, else $COMMIT")
    return parser.parse_args()


@contextlib.contextmanager
def asked_server(args: argparse.Namespace) -> Iterator[Watched]:
    if args.url:
        yield watch(args.url, args.pid)
        return
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        models = named_models(args.models, Path(folder))
        log = args.out and args.out.with_suffix(".server.log")
        with serving(models, "--random-seed", "1", *args.server_flags.split(), log=log) as server:
            yield server


def print_table(found: dict[str, Any]) -> None:
    for name, row in found["memory"].items():
        print(f"  {name}: {row}")
    for outcome, count in found["outcomes"].items():
        print(f"  {outcome}: {count}")
    for outcome, about in found["wrong"].items():
        print(f"  WRONG {outcome}: {about}")


if __name__ == "__main__":
    main()
