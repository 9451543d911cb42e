"""Guided tokens per second with speculation over those without, in one run, on the tiny family.

    python -m benchmarks.speculation_cost --drafts 1,2,3,4,5 --out results/speculation.jsonl

A server without speculation and one that writes K tokens ahead, or where that pays (auto), run beside each other; their
turns alternate, and each turn asks the same held-out problems with pictures, so that both see the same machine. Greedy
answers are compared text by text: a difference is an error. Drawn ones are not, since on a CPU a request's seed does
nothing. With a fixed K, which drafts counted is told too. That needs no quiet machine: with `--turns 0` nothing else is
measured, and no server without speculation runs. The family's text is templated, and its expert is nearly always right:
its acceptance is a bound from above. With `--experts` others guide than the one that drafts. Ratios of tiny models on a
CPU are mostly those of Python's work, and say nothing about a GPU. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import requests

from benchmarks import draft_acceptance
from benchmarks.conditions import ask_conditions
from benchmarks.lines import append_line
from benchmarks.local_server import named_models, serving
from sgl_proxythinker import tiny_family
from sgl_proxythinker.programs.pictures import data_url
from sgl_proxythinker.tiny_family.problems import Problem, problems
from sgl_proxythinker.tiny_family.settings import ANSWER_TOKENS
from sgl_proxythinker.tiny_family.wordings import TEST

# Of which the first drafts for all.
EXPERTS = ("expert", tiny_family.SPECIALIST.name)
BOTH = "both"


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
    parser.add_argument(
        "--experts", default=EXPERTS[0],
        help=f"who guides, several in turn: {', '.join(EXPERTS)}, or {BOTH} with half of alpha each (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--temperature", default="0", help="several in turn (%(default)s)")
    parser.add_argument("--at-once", default="1,8", help="requests that decode together (%(default)s)")
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--turns", type=int, default=5, help="0: only which drafts counted (%(default)s)")
    parser.add_argument("--out", type=Path, default=None, help="JSON lines, appended")
    parser.add_argument("--commit", default=None)
    args = parser.parse_args()
    if not args.turns and "auto" in args.drafts.split(","):
        parser.error("--turns 0 with auto measures nothing: which drafts counted is told of a fixed K only.")
    guides = args.experts.split(",")
    if unknown := set(guides) - {*EXPERTS, BOTH}:
        parser.error(f"--experts {', '.join(sorted(unknown))}: they are {', '.join((*EXPERTS, BOTH))}.")
    where = ask_conditions(args.commit)
    asked = list(problems(TEST, args.problems))
    results = []
    with tempfile.TemporaryDirectory(prefix="speculation_cost.") as folder:
        models = named_models("family", Path(folder))
        if guides != [EXPERTS[0]]:
            models += ["--proxy-expert", f"{tiny_family.SPECIALIST.name}={tiny_family.SPECIALIST}"]
        with contextlib.ExitStack() as servers:
            plain = servers.enter_context(serving(models, "--proxy-speculate", "off")).url if args.turns else None
            for drafts in args.drafts.split(","):
                with serving(models, "--proxy-speculate", drafts) as speculating:
                    for guide, alpha, temperature, at_once in product(
                        guides,
                        map(float, args.alphas.split(",")),
                        map(float, args.temperature.split(",")),
                        map(int, args.at_once.split(",")),
                    ):
                        row = {"drafts": drafts, "guided_by": guide, "alpha": alpha}
                        row |= {"temperature": temperature, "at_once": at_once}
                        guidance = guided_by(guide, alpha)
                        if plain:
                            urls = (plain, speculating.url)
                            row |= compare(urls, asked, guidance, temperature, at_once, args.turns)
                        if drafts != "auto":
                            row["acceptance"] = draft_acceptance.measure(
                                speculating.url, asked, int(drafts), guidance, temperature, at_once
                            )
                        results.append(row)
                        print(results[-1], flush=True)
    report = {"name": "speculation_cost", "conditions": where, "results": results}
    if args.out:
        append_line(args.out, report)
    print(json.dumps(report))


def guided_by(guide: str, alpha: float) -> dict[str, Any]:
    """`custom_params` for one of the experts at this strength, or for both at half of it each."""
    if guide == BOTH:
        return {"proxy_experts": dict.fromkeys(EXPERTS, alpha / len(EXPERTS))}
    return {"proxy_expert": guide, "proxy_alpha": alpha}


def compare(
    urls: tuple[str, str],
    asked: list[Problem],
    guidance: Mapping[str, Any],
    temperature: float,
    at_once: int,
    turns: int,
) -> dict[str, Any]:
    """Tokens a second of the first and of the second server, in turn, and their ratio.

    Raises:
        RuntimeError: they gave different greedy answers.
    """
    pairs = []
    for number in range(turns + 1):
        order = (0, 1) if number % 2 else (1, 0)
        taken = {place: answer_all(urls[place], asked, guidance, temperature, at_once) for place in order}
        if not temperature and taken[0].texts != taken[1].texts:
            raise RuntimeError(f"guided by {dict(guidance)} the two servers gave different answers")
        pairs.append((taken[0], taken[1]))
    pairs = pairs[1:]  # the first turn reads prompts that are cached afterwards
    # Drawn answers differ in length.
    ratios = [(ahead.tokens / ahead.seconds) / (without.tokens / without.seconds) for without, ahead in pairs]
    ahead = pairs[0][1]
    return {
        "tokens_per_s": [round(statistics.median(turn.tokens / turn.seconds for turn in side), 1)
                         for side in zip(*pairs, strict=True)],
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(min(ratios), 3), round(max(ratios), 3)],
        "tokens_a_cycle": round((ahead.tokens - len(asked)) / ahead.cycles, 3),
    }  # fmt: skip


def answer_all(url: str, asked: list[Problem], guidance: Mapping[str, Any], temperature: float, at_once: int) -> Turn:
    """Answers to all problems, `at_once` at a time."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        choices = list(pool.map(lambda one: answer(url, one, guidance, temperature), asked))
    seconds = time.perf_counter() - begin
    metas = [choice["meta_info"] for choice in choices]
    return Turn(
        [choice["message"]["content"] for choice in choices],
        sum(meta["completion_tokens"] for meta in metas),
        sum(meta.get("spec_verify_ct", meta["completion_tokens"] - 1) for meta in metas),
        seconds,
    )


def answer(url: str, one: Problem, guidance: Mapping[str, Any], temperature: float) -> dict[str, Any]:
    picture = {"type": "image_url", "image_url": {"url": data_url(one.picture())}}
    body = {
        "model": "default",
        "messages": [{"role": "user", "content": [picture, {"type": "text", "text": one.question}]}],
        "temperature": temperature,
        "max_tokens": ANSWER_TOKENS,
        "return_meta_info": True,
        "custom_params": guidance,
    }
    response = requests.post(f"{url}/v1/chat/completions", json=body, timeout=300)
    response.raise_for_status()
    return response.json()["choices"][0]


if __name__ == "__main__":
    main()
