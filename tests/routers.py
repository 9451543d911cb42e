"""Real routers of the package index in front of servers under test, on loopback."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import requests

from documented import block, commands
from servers import clean_environment
from sgl_proxythinker.programs.server_process import reserve_port, running

READY_WITHIN_S = 120
PAGE = "docs/serving.md"
KINDS = {"sglang-router": "# On the router's host, by sglang-router", "smg": "# On the router's host, or by smg"}


class Router(NamedTuple):
    kind: str
    url: str

    def post(self, route: str, body: Any, **options: Any) -> requests.Response:
        return requests.post(self.url + route, json=body, timeout=120, **options)

    def healthy(self) -> set[str]:
        """URLs of the workers that it sends requests to."""
        workers = requests.get(f"{self.url}/workers", timeout=10).json()["workers"]
        return {worker["url"] for worker in workers if worker["is_healthy"]}


@contextlib.contextmanager
def routing(kind: str, workers: list[str], folder: Path, *flags: str) -> Iterator[Router]:
    """Run a router as the page says in front of the servers at these URLs until the block ends.

    Args:
        flags: those of the page that are among them have these values instead.
    """
    port, log = reserve_port(), folder / "log"
    [_, (_, (_, *words))] = commands(PAGE, block(PAGE, KINDS[kind]))
    first = words.index("--worker-urls") + 1
    words[first : first + 2] = workers
    words[words.index("--port") + 1] = str(port)
    for flag in {*flags} & {*words}:
        at = words.index(flag)
        del words[at : at + 2]
    command = [
        sys.executable, *words, "--prometheus-host", "127.0.0.1", "--prometheus-port", str(reserve_port()),
        "--log-level", "warn", *flags,
    ]  # fmt: skip
    with running(command, log, clean_environment()):
        router = Router(kind, f"http://127.0.0.1:{port}")
        wait_until(lambda: models(router.url), log)
        wait_until(lambda: router.healthy() == set(workers), log)
        yield router


def models(url: str) -> set[str]:
    """Names that a router knows; none before it listens."""
    try:
        response = requests.get(f"{url}/v1/models", timeout=10)
        return {card["id"] for card in response.json()["data"]} if response.ok else set()
    except requests.RequestException:
        return set()


def wait_until(is_so: Callable[[], Any], log: Path | None = None) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline, log and log.read_text(errors="replace")[-2000:]
        time.sleep(0.5)
