"""Many image chats at once: time to first token and throughput, guided against plain, by SGLang's `bench_serving`.

    python -m benchmarks.served image_chats --base 32B --proxy 7B --out results/served.jsonl

Every chat is one image of noise, some text, and an answer of a fixed length, all sent at once over HTTP as
/v1/chat/completions with streaming. A guided server is asked at each of --alphas, a plain one once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.servers import Server, base_folder

NAME = "image_chats"
ENGINES = ("plain", "guided")
CLIENT_WITHIN_S = 600
# Of the client's result.
MEASURED = (
    "completed", "duration", "total_input_tokens", "total_input_vision_tokens", "total_output_tokens",
    "request_throughput", "output_throughput", "total_throughput", "mean_ttft_ms", "median_ttft_ms", "p99_ttft_ms",
    "mean_tpot_ms", "median_itl_ms", "mean_e2e_latency_ms",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chats", type=int, default=64, help="image chats in all (%(default)s)")
    parser.add_argument("--concurrency", type=int, default=64, help="image chats at once (%(default)s)")
    parser.add_argument("--chat-text", type=int, default=32, help="ids drawn for a chat's text; each is about 3 tokens")
    parser.add_argument("--chat-tokens", type=int, default=128, help="tokens of an answer (%(default)s)")
    parser.add_argument("--alphas", type=numbers, default=(0.5,), metavar="0.5,0", help="of a guided server's runs")


def numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def workload(args: argparse.Namespace) -> dict[str, Any]:
    names = ("chats", "concurrency", "chat_text", "chat_tokens")
    return {name: getattr(args, name) for name in names} | {"image": list(args.image)}


def measure(server: Server, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One record for each alpha; a plain server has one, without an alpha."""
    for number, alpha in enumerate(args.alphas if server.guided else (None,), start=1):
        # A server that has answered such a load before is faster, also where a few requests warmed the other.
        run_client(server, args, alpha, seed=0)
        server.flush_cache()
        # Other pictures in each run: embeddings of known ones would be found cached.
        yield {"alpha": alpha, **run_client(server, args, alpha, seed=number)}


def run_client(server: Server, args: argparse.Namespace, alpha: float | None, seed: int) -> dict[str, Any]:
    """Send all chats, with the pictures and texts of `seed`; return the `MEASURED` part of the client's result."""
    height, width = args.image
    result_file, log = (args.out.with_suffix(f".bench_serving.{ending}") for ending in ("json", "log"))
    result_file.unlink(missing_ok=True)
    flags: dict[str, Any] = {
        "backend": "sglang-oai-chat",
        "base-url": server.url,
        "dataset-name": "image",
        "model": base_folder(args),
        "tokenizer": base_folder(args),
        "num-prompts": args.chats,
        "max-concurrency": args.concurrency,
        "request-rate": "inf",
        "image-count": 1,
        "image-resolution": f"{height}x{width}",
        "random-input-len": args.chat_text,
        "random-output-len": args.chat_tokens,
        "random-range-ratio": 1,  # all lengths are the same
        "warmup-requests": 0,  # its warm-up is one of the chats that are timed
        "seed": seed,
        "output-file": result_file,
    }
    if alpha is not None:
        flags["extra-request-body"] = json.dumps({"custom_params": {"proxy_alpha": alpha}})
    command = [sys.executable, "-m", "benchmarks.bench_client", "--disable-tqdm"]
    command += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    print(f"  {args.chats} image chats, alpha {alpha}, seed {seed}: log in {log}", flush=True)
    with log.open("a") as output:
        subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, timeout=CLIENT_WITHIN_S, check=True)
    result = read_result(result_file, args.chats)
    if bool(result["server_info"]["proxy"]) != server.guided:
        raise RuntimeError(f"asked a {server.engine} server, and it has the proxies {result['server_info']['proxy']}")
    return {name: result[name] for name in MEASURED}


def read_result(file: Path, chats: int) -> dict[str, Any]:
    result = json.loads(file.read_text())
    if result["completed"] != chats:
        raise RuntimeError(f"{result['completed']} of {chats} image chats were answered; errors are in the log")
    return result


def brief(record: dict[str, Any]) -> str:
    return (
        f"alpha {record['alpha']}: time to first token {record['mean_ttft_ms']:.0f} ms on average, p99 "
        f"{record['p99_ttft_ms']:.0f} ms; {record['output_throughput']:.0f} tokens/s; {record['duration']:.1f} s in all"
    )


def compare(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each guided run over the plain one: times as guided / plain, throughput likewise.

    Args:
        records: the newest of each engine and alpha, of one setting.
    """
    plain = next((record for record in records if record["engine"] == "plain"), None)
    return [
        {
            "alpha": record["alpha"],
            "ttft_ms": [plain["mean_ttft_ms"], record["mean_ttft_ms"]],
            "ttft_ratio": round(record["mean_ttft_ms"] / plain["mean_ttft_ms"], 3),
            "tokens_per_s": [plain["output_throughput"], record["output_throughput"]],
            "throughput_ratio": round(record["output_throughput"] / plain["output_throughput"], 3),
            "duration_s": [plain["duration"], record["duration"]],
            "duration_ratio": round(record["duration"] / plain["duration"], 3),
        }
        for record in records
        if plain and record["engine"] == "guided"
    ]
