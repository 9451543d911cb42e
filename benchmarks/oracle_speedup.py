"""The same work by the project's `transformers` loop and by a guided server: how many times faster is the server?

    python -m benchmarks.oracle_speedup --base 7B --proxy 3B --out results/oracle.jsonl
    python -m benchmarks.oracle_speedup --base tiny --proxy tiny --cpu --requests 4 --one-by-one 2 --tokens 8 \\
        --image 56x84 --loop-seconds 5 --out results/rehearsal-oracle.jsonl

The work: requests of one image each, greedy at alpha 0.5, answers of a fixed length. `programs.reference_hf` answers
them one after another, as it works: three eager models with a KV cache, whose rows are fused on the CPU. The server is
sent all at once, and some one after another. Weights are random, made on the device, dimensions real. Requests per
second are compared, so the loop may answer as few as fit into --loop-seconds, and its line says how many. Every
measurement is a line of --out; the last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig, Qwen2_5_VLForConditionalGeneration

from benchmarks import servers
from benchmarks.conditions import ask_conditions
from benchmarks.lines import append_line, group_by_setting, read_lines
from benchmarks.weightless import write_weightless
from sgl_proxythinker.programs.pictures import data_url, random_picture
from sgl_proxythinker.programs.reference_hf import Reference

NAME = "oracle_speedup"
ALPHA = 0.5
LOOP, AT_ONCE, ONE_BY_ONE = "transformers loop", "server, all at once", "server, one after another"
WARM_UP_TOKENS = 4


def main() -> None:
    args = parse_arguments()
    if args.child:
        print(json.dumps(measure_loop(args)))
        return
    where = ask_conditions(args.commit)
    print(
        f"{where['device']}, driver {where['driver']}, torch {where['torch']}, sglang {where['sglang']}, commit "
        f"{where['commit']}\n{args.base} guided by two {args.proxy}, {servers.dtype(args)}, random weights, "
        f"{args.requests} requests of an image of {args.image[0]}x{args.image[1]} pixels, {args.tokens} new tokens",
        flush=True,
    )
    common = {"benchmark": NAME, "setting": servers.setting_of(args) | workload(args), "conditions": where}
    for record in measure(args):
        append_line(args.out, common | record)
        print(f"  {record['how']}: {record['requests']} requests in {record['seconds']} s, "
              f"{record['requests_per_s']} requests/s, {record['tokens_per_s']} tokens/s", flush=True)  # fmt: skip
    print(json.dumps({"name": NAME, "results": summaries(read_lines(NAME, args.out))}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.oracle_speedup", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    servers.add_arguments(parser)
    parser.set_defaults(base="7B", proxy="3B")
    parser.add_argument("--requests", type=int, default=64, help="sent to the server at once (%(default)s)")
    parser.add_argument("--one-by-one", type=int, default=4, help="of them, also sent one after another (%(default)s)")
    parser.add_argument("--tokens", type=int, default=128, help="of an answer (%(default)s)")
    parser.add_argument("--loop-seconds", type=float, default=60, help="the loop begins no request later (%(default)s)")
    parser.add_argument("--image", type=servers.height_x_width, default=(448, 672), metavar="448x672")
    parser.add_argument("--only", choices=("loop", "server"), help="default: both")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def workload(args: argparse.Namespace) -> dict[str, Any]:
    return {"requests": args.requests, "tokens": args.tokens, "image": list(args.image), "alpha": ALPHA}


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if args.only != "server":
        # In a process of its own: the server is to be given the whole GPU.
        command = [sys.executable, "-m", "benchmarks.oracle_speedup", "--child", *sys.argv[1:]]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        yield json.loads(done.stdout.splitlines()[-1])
    if args.only != "loop":
        with servers.serving(args, "guided") as server:
            yield from measure_server(server, args)


# Requests


def prompt_of(number: int) -> str:
    return servers.user_turn(f"{number} " + "What is shown in the image? " * 8, images=1)


def picture_of(number: int, args: argparse.Namespace) -> Any:
    height, width = args.image
    return random_picture(number, width, height)


def record_of(how: str, seconds: float, prompt_tokens: list[int], args: argparse.Namespace) -> dict[str, Any]:
    """One line: `seconds` for as many requests as there are prompts."""
    requests = len(prompt_tokens)
    return {
        "how": how,
        "requests": requests,
        "prompt_tokens": prompt_tokens[0],
        "seconds": round(seconds, 3),
        "requests_per_s": round(requests / seconds, 4),
        "tokens_per_s": round(requests * args.tokens / seconds, 2),
    }


# The loop


def measure_loop(args: argparse.Namespace) -> dict[str, Any]:
    """Answer requests one after another until the time is over; at least one is timed."""
    device = "cpu" if args.cpu else "cuda"
    folders = [
        write_weightless(args.models / folder, name)
        for folder, name in ((args.base, args.base), (f"{args.proxy}-expert", args.proxy),
                             (f"{args.proxy}-amateur", args.proxy))
    ]  # fmt: skip
    reference = Reference(*folders, dtype=getattr(torch, servers.dtype(args)), device=device, load=make_random)
    generate(reference, args.requests, args, WARM_UP_TOKENS)
    prompt_tokens: list[int] = []
    begin = time.perf_counter()
    while len(prompt_tokens) < args.requests and (seconds := time.perf_counter() - begin) < args.loop_seconds:
        prompt_tokens.append(generate(reference, len(prompt_tokens), args, args.tokens))
        print(f"  {LOOP}: request {len(prompt_tokens)} after {seconds:.1f} s", file=sys.stderr, flush=True)
    return record_of(LOOP, time.perf_counter() - begin, prompt_tokens, args)


def make_random(path: str | Path, dtype: torch.dtype, device: str) -> Qwen2_5_VLForConditionalGeneration:
    """A model of the folder's config, its weights drawn on the device: there is no checkpoint to read."""
    with torch.device(device):
        model = Qwen2_5_VLForConditionalGeneration._from_config(AutoConfig.from_pretrained(path), dtype=dtype)
    model.generation_config = GenerationConfig.from_pretrained(path)
    return model


def generate(reference: Reference, number: int, args: argparse.Namespace, tokens: int) -> int:
    """Answer one request. Returns the tokens of its prompt."""
    output = reference.generate(
        prompt_of(number), [picture_of(number, args)], alpha=ALPHA, max_new_tokens=tokens, stop_at_eos=False
    )
    return len(output.input_ids)


# The server


def measure_server(server: servers.Server, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All requests at once, then some of them one after another."""
    pictures = [data_url(picture_of(number, args)) for number in range(args.requests)]

    def ask(number: int) -> int:
        answer = server.generate(prompt_of(number), [pictures[number]], ALPHA, max_new_tokens=args.tokens)
        return answer["meta_info"]["prompt_tokens"]

    with ThreadPoolExecutor(args.requests) as pool:
        for how, requests, ask_all in (
            (AT_ONCE, args.requests, lambda numbers: list(pool.map(ask, numbers))),
            (ONE_BY_ONE, args.one_by_one, lambda numbers: list(map(ask, numbers))),
        ):
            if not requests:
                continue
            ask_all(range(min(requests, 8)))  # to warm up
            server.flush_cache()
            begin = time.perf_counter()
            prompt_tokens = ask_all(range(requests))
            yield record_of(how, time.perf_counter() - begin, prompt_tokens, args)


def summaries(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Speed-ups by requests per second; the newest line of a kind counts."""
    # The loop has no server that flags could change.
    lines = [line | {"setting": line["setting"] | {"server_flags": ""}} for line in lines]
    return [summary({line["how"]: line for line in group}) for group in group_by_setting(lines)]


def summary(lines: dict[str, dict[str, Any]]) -> dict[str, Any]:
    newest = next(reversed(lines.values()))
    loop = lines.get(LOOP)
    names = ("requests", "prompt_tokens", "seconds", "requests_per_s", "tokens_per_s")
    rows = [{"how": how, **{name: line[name] for name in names}} for how, line in lines.items()]
    for row in rows:
        row["speed_up"] = round(row["requests_per_s"] / loop["requests_per_s"], 2) if loop else None
    return {"setting": newest["setting"], "conditions": newest["conditions"], "rows": rows}


if __name__ == "__main__":
    main()
