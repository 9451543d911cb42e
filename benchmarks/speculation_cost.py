"""Guided tokens per second with speculation over those without, in one run, on the tiny family.

    python -m benchmarks.speculation_cost --drafts 1,2,3,4,5 --out results/speculation.jsonl

A server without speculation and one that writes K tokens ahead, or where that pays (auto), run beside each other; their
turns alternate, and each turn asks the same held-out problems with pictures, so that both see the same machine. Answers
are compared text by text: a difference is an error. The family's text is templated, and its expert is nearly always
right: its acceptance is a bound from above. Ratios of tiny models on a CPU are mostly those of Python's work, and say
nothing about a GPU. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import requests

from benchmarks.conditions import ask_conditions
from benchmarks.lines import append_line
from benchmarks.local_server import named_models, serving
from sgl_proxythinker.programs.pictures import data_url
from sgl_proxythinker.tiny_family.problems import Problem, problems
from sgl_proxythinker.tiny_family.settings import ANSWER_TOKENS
from sgl_proxythinker.tiny_family.wordings import TEST


class Turn(NamedTuple):
    """One server's answers to all problems."""

    texts: list[str]
    tokens: int
    cycles: int  # steps of decoding
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speculation_cost", description=__doc__.splitlines()[0])
    parser.add_argument("--drafts", default="3", help="K or auto, several in turn (%(default)s)")
    parser.add_argument("--alphas", default="0.5,0", help="(%(default)s)")
    parser.add_argument("--at-once", default="1,8", help="requests that decode together (%(default)s)")
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None, help="JSON lines, appended")
    parser.add_argument("--commit", default=None)
    args = parser.parse_args()
    where = ask_conditions(args.commit)
    asked = list(problems(TEST, args.problems))
    results = []
    with tempfile.TemporaryDirectory(prefix="speculation_cost.") as folder:
        models = named_models("family", Path(folder))
        with serving(models, "--proxy-speculate", "off") as plain:
            for drafts in args.drafts.split(","):
                with serving(models, "--proxy-speculate", drafts) as speculating:
                    for alpha in map(float, args.alphas.split(",")):
                        for at_once in map(int, args.at_once.split(",")):
                            row = compare((plain.url, speculating.url), asked, alpha, at_once, args.turns)
                            results.append({"drafts": drafts, "alpha": alpha, "at_once": at_once, **row})
                            print(results[-1], flush=True)
    report = {"name": "speculation_cost", "conditions": where, "results": results}
    if args.out:
        append_line(args.out, report)
    print(json.dumps(report))


def compare(urls: tuple[str, str], asked: list[Problem], alpha: float, at_once: int, turns: int) -> dict[str, Any]:
    """Tokens a second of the first and of the second server, in turn, and their ratio.

    Raises:
        RuntimeError: they gave different answers.
    """
    pairs = []
    for number in range(turns + 1):
        order = (0, 1) if number % 2 else (1, 0)
        taken = {place: answer_all(urls[place], asked, alpha, at_once) for place in order}
        if taken[0].texts != taken[1].texts:
            raise RuntimeError(f"at alpha {alpha} the two servers gave different answers")
        pairs.append((taken[0], taken[1]))
    pairs = pairs[1:]  # the first turn reads prompts that are cached afterwards
    ratios = [without.seconds / ahead.seconds for without, ahead in pairs]
    ahead = pairs[0][1]
    return {
        "tokens_per_s": [round(statistics.median(turn.tokens / turn.seconds for turn in side), 1)
                         for side in zip(*pairs, strict=True)],
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(min(ratios), 3), round(max(ratios), 3)],
        "tokens_a_cycle": round((ahead.tokens - len(asked)) / ahead.cycles, 3),
    }  # fmt: skip


def answer_all(url: str, asked: list[Problem], alpha: float, at_once: int) -> Turn:
    """Greedy answers to all problems, `at_once` at a time."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        choices = list(pool.map(lambda one: answer(url, one, alpha), asked))
    seconds = time.perf_counter() - begin
    metas = [choice["meta_info"] for choice in choices]
    return Turn(
        [choice["message"]["content"] for choice in choices],
        sum(meta["completion_tokens"] for meta in metas),
        sum(meta.get("spec_verify_ct", meta["completion_tokens"] - 1) for meta in metas),
        seconds,
    )


def answer(url: str, one: Problem, alpha: float) -> dict[str, Any]:
    picture = {"type": "image_url", "image_url": {"url": data_url(one.picture())}}
    body = {
        "model": "default",
        "messages": [{"role": "user", "content": [picture, {"type": "text", "text": one.question}]}],
        "temperature": 0,
        "max_tokens": ANSWER_TOKENS,
        "return_meta_info": True,
        "custom_params": {"proxy_alpha": alpha},
    }
    response = requests.post(f"{url}/v1/chat/completions", json=body, timeout=300)
    response.raise_for_status()
    return response.json()["choices"][0]


if __name__ == "__main__":
    main()
