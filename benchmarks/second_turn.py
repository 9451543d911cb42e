"""The second turn of a conversation over images: time to first token with the prefix cache on against off.

    python -m benchmarks.served second_turn --base 32B --proxy 7B --out results/served.jsonl

The second turn sends everything again, images too, as conversations do: what is saved is the prefill of three models
for the first turn and its answer. Reading the images is in both, running the vision towers in neither, since SGLang
keeps the embeddings of recent images whether or not it keeps prefixes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from tokenizers import Tokenizer

from benchmarks.servers import Server, base_folder, user_turn
from sgl_proxythinker.programs.pictures import data_url, random_picture

NAME = "second_turn"
ENGINES = ("guided", "guided-no-cache")
ALPHA = 0.5
# Random models answer with ids that no text is encoded to, and the second turn sends the answer as text.
ANSWER_WORD = "a"
PAGE_TOKENS = 64  # the largest of SGLang's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--conversations", type=int, default=5, help="that are timed (%(default)s); one more before")
    parser.add_argument("--images", type=int, default=1, help="in the first turn (%(default)s)")
    parser.add_argument("--turn-text", type=int, default=200, help="words of a question, a token each (%(default)s)")
    parser.add_argument("--turn-tokens", type=int, default=64, help="tokens of the first answer (%(default)s)")


def workload(args: argparse.Namespace) -> dict[str, Any]:
    names = ("conversations", "images", "turn_text", "turn_tokens")
    return {name: getattr(args, name) for name in names} | {"image": list(args.image)}


def measure(server: Server, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One record: what the second turns took, and how much of their prompts was cached."""
    answer_id = Tokenizer.from_file(str(base_folder(args) / "tokenizer.json")).token_to_id(ANSWER_WORD)
    turns = [converse(server, args, seed, answer_id) for seed in range(args.conversations + 1)]
    timed = turns[1:]
    yield {
        "ttft_ms": round(median(turn["ttft_ms"] for turn in timed), 2),
        "runs_ms": [turn["ttft_ms"] for turn in timed],
        "prompt_tokens": timed[0]["prompt_tokens"],
        "cached_tokens": timed[0]["cached_tokens"],
    }


def converse(server: Server, args: argparse.Namespace, seed: int, answer_id: int) -> dict[str, Any]:
    """Both turns of a conversation with pictures of its own. An answer of one token ends with its first token."""
    height, width = args.image
    pictures = [random_picture(args.images * seed + index, width, height) for index in range(args.images)]
    images = list(map(data_url, pictures))
    question = user_turn(" b" * args.turn_text, args.images)
    only_word = {"logit_bias": {str(answer_id): 1e4}}
    first = server.generate(question, images, ALPHA, max_new_tokens=args.turn_tokens, **only_word)
    again = f"{question}{first['text']}<|im_end|>\n" + user_turn(" c" * args.turn_text)
    begin = time.perf_counter()
    second = server.generate(again, images, ALPHA, max_new_tokens=1)
    ttft_ms = round((time.perf_counter() - begin) * 1e3, 2)
    cached = second["meta_info"]["cached_tokens"]
    # All of the first turn, but for a page that it did not fill.
    first_tokens = first["meta_info"]["prompt_tokens"] + args.turn_tokens
    expected = range(first_tokens - PAGE_TOKENS, first_tokens + 1) if server.engine == "guided" else (0,)
    if cached not in expected:
        raise RuntimeError(f"{cached} of {first_tokens} tokens were cached on a {server.engine} server")
    return {"ttft_ms": ttft_ms, "prompt_tokens": second["meta_info"]["prompt_tokens"], "cached_tokens": cached}


def brief(record: dict[str, Any]) -> str:
    return (
        f"second turn of {record['prompt_tokens']} tokens, {record['cached_tokens']} cached: first token after "
        f"{record['ttft_ms']} ms, of {record['runs_ms']}"
    )


def compare(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Time to first token with the prefix cache off over on.

    Args:
        records: the newest of each engine, of one setting.
    """
    by_engine = {record["engine"]: record for record in records}
    if set(by_engine) != set(ENGINES):
        return []
    on, off = (by_engine[engine] for engine in ENGINES)
    return [
        {
            "prompt_tokens": on["prompt_tokens"],
            "cached_tokens": on["cached_tokens"],
            "ttft_ms": [off["ttft_ms"], on["ttft_ms"]],
            "off_over_on": round(off["ttft_ms"] / on["ttft_ms"], 3),
        }
    ]
