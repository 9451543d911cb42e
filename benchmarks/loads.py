"""Loads of about a minute each, with drafts where they pay (`--proxy-speculate auto`) against none.

    python -m benchmarks.served loads --base 32B --proxy 7B --attention-backend fa3 --out results/loads.jsonl

Each load is the same work for both servers: waves of requests that are sent together, each wave when the last one is
answered. What counts is the time for all of it, so that drafts that are tried and lost, and those that bring something,
are in it. How many drafts count is drawn with the probability of the load (`benchmarks.forced_acceptance`), since
random weights accept next to none; without drafts it changes nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from benchmarks import forced_acceptance
from benchmarks.servers import Server, user_turn
from sgl_proxythinker.programs.pictures import data_url, random_picture

NAME = "loads"
ENGINES = ("guided", "guided-auto")
ALPHA = 0.5
PROMPT_WORDS = 200  # a token each
LOW, HIGH = 0.2, 0.9  # of acceptance
UP = (1, 2, 4, 8, 16, 32, 64)
PENALTY = 1.05  # what Qwen2.5's generation_config.json asks for, so SGLang takes it for every chat


class Phase(NamedTuple):
    """Waves of equal requests."""

    at_once: int
    waves: int
    acceptance: float = LOW
    alpha: float = ALPHA
    pictures: int = 0  # in each request, one or none
    repetition_penalty: float = 1.0


LOADS: dict[str, tuple[Phase, ...]] = {
    "1": (Phase(1, 10),),
    "8": (Phase(8, 10),),
    "64": (Phase(64, 8),),
    "ramp to 128 and back": tuple(Phase(at_once, 1) for at_once in (*UP, 128, *reversed(UP))),
    "ramp, drafts right": tuple(Phase(at_once, 1, HIGH) for at_once in (*UP, 128, *reversed(UP))),
    "8 at alpha 0": (Phase(8, 10, alpha=0.0),),
    "64 image chats": (Phase(64, 4, pictures=1),),
    "8, acceptance falling": (Phase(8, 5, HIGH), Phase(8, 5, LOW)),
    "64, penalized": (Phase(64, 8, repetition_penalty=PENALTY),),
    "8, penalized, acceptance falling": (
        Phase(8, 5, HIGH, repetition_penalty=PENALTY),
        Phase(8, 5, LOW, repetition_penalty=PENALTY),
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=tuple(LOADS), help="(all)")
    parser.add_argument("--load-tokens", type=int, default=256, help="of each answer (%(default)s)")
    parser.add_argument("--load-at-most", type=int, default=128, help="requests at once, to rehearse (%(default)s)")


def workload(args: argparse.Namespace) -> dict[str, Any]:
    return {"load_tokens": args.load_tokens, "load_at_most": args.load_at_most, "image": list(args.image)}


def measure(server: Server, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One record for each load: seconds, and tokens a cycle where there were any."""
    warm_up = (Phase(1, 2), Phase(8, 1), Phase(64, 1), Phase(64, 1, alpha=0.0), Phase(8, 1, pictures=1),
               Phase(8, 1, repetition_penalty=PENALTY))  # fmt: skip
    run(server, args, warm_up, first=0)
    for number, name in enumerate(args.loads, start=1):
        server.flush_cache()
        yield {"load": name, **run(server, args, LOADS[name], first=10_000 * number)}


def run(server: Server, args: argparse.Namespace, phases: tuple[Phase, ...], first: int) -> dict[str, Any]:
    """All waves of a load; its requests are numbered from `first`, and no two have a picture or a prompt in common."""
    prepared = [[prepare(args, phase, first + 1000 * place + each) for each in range(_requests(args, phase))]
                for place, phase in enumerate(phases)]  # fmt: skip
    metas: list[dict[str, Any]] = []
    seconds = []
    with ThreadPoolExecutor(args.load_at_most) as pool:
        for phase, requests in zip(phases, prepared, strict=True):
            forced_acceptance.force(phase.acceptance)
            at_once = min(phase.at_once, args.load_at_most)
            begin = time.perf_counter()
            for wave in range(phase.waves):
                asked = requests[wave * at_once : (wave + 1) * at_once]
                answers = pool.map(lambda each: server.generate(**each, max_new_tokens=args.load_tokens), asked)
                metas += [answer["meta_info"] for answer in answers]
            seconds.append(round(time.perf_counter() - begin, 3))
    tokens = sum(meta["completion_tokens"] for meta in metas)
    cycles = sum(meta.get("spec_verify_ct", 0) for meta in metas)
    return {"seconds": round(sum(seconds), 3), "phases_s": seconds, "tokens": tokens,
            "tokens_a_cycle": round(tokens / cycles, 3) if cycles else None}  # fmt: skip


def _requests(args: argparse.Namespace, phase: Phase) -> int:
    return phase.waves * min(phase.at_once, args.load_at_most)


def prepare(args: argparse.Namespace, phase: Phase, number: int) -> dict[str, Any]:
    height, width = args.image
    images = [data_url(random_picture(number, width, height))] * phase.pictures
    text = user_turn(f"{number}" + " b" * PROMPT_WORDS, phase.pictures)
    return {"text": text, "images": images, "alpha": phase.alpha, "repetition_penalty": phase.repetition_penalty}


def brief(record: dict[str, Any]) -> str:
    return f"{record['load']}: {record['seconds']} s, {record['tokens_a_cycle'] or 1} tokens a cycle"


def compare(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The time of each load with drafts where they pay over that without.

    Args:
        records: the newest of each engine and load, of one setting.
    """
    seconds = {(record["engine"], record["load"]): record["seconds"] for record in records}
    off, auto = ENGINES
    return [
        {
            "load": load,
            "seconds": [seconds[off, load], seconds[auto, load]],
            "over_off": round(seconds[auto, load] / seconds[off, load], 3),
        }
        for load in LOADS
        if (off, load) in seconds and (auto, load) in seconds
    ]
