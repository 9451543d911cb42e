"""Tokens per second of a tiny guided triple over its base alone, on this CPU, in one run.

    python -m benchmarks.cpu_cost --batches 1,4

What it is for: seeing that a change made the worker slower, without a GPU. The models are so small that a step is
mostly Python; the ratio says nothing about the ratio of real models. Each engine has a process of its own. The last
line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.conditions import conditions
from benchmarks.engines import Plan, measure_engine, run_child
from sgl_proxythinker.programs.random_models.tokenizer import TEXT_TOKENS
from sgl_proxythinker.programs.random_triple import ROLES, Triple, make_triple

CONFIGURATIONS = ("plain", "guided")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu_cost", description=__doc__.splitlines()[0])
    parser.add_argument("--batches", default="1,4", help="requests that decode together (%(default)s)")
    parser.add_argument("--input-len", type=int, default=32)
    parser.add_argument("--output-len", type=int, default=64, help="decode steps that are timed (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/cpu_cost.jsonl"), help="JSON lines, appended")
    parser.add_argument("--commit", default=None)
    parser.add_argument("--child", nargs=2, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    batches = tuple(map(int, args.batches.split(",")))
    plan = Plan(
        batches, args.input_len, args.output_len, repeats=args.repeats, sampled=False, prompt_ids=TEXT_TOKENS
    )  # fmt: skip
    if args.child:
        run_engine(plan, *args.child)
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    where = conditions(args.commit)
    print(f"{where['device']}, torch {where['torch']}, sglang {where['sglang']}, commit {where['commit']}", flush=True)
    with tempfile.TemporaryDirectory(prefix="cpu_cost.") as folder:
        make_triple(folder)
        ms = {name: measure(name, folder, args.out, where) for name in CONFIGURATIONS}
    result = {"name": "cpu_cost", "conditions": where, "results": [row(batch, ms) for batch in batches]}
    print(f"{'batch':>5} {'plain tokens/s':>15} {'guided tokens/s':>16} {'guided/plain':>13}")
    for line in result["results"]:
        print(f"{line['batch']:>5} {line['plain']:>15} {line['guided']:>16} {line['guided_over_plain']:>13}")
    print(json.dumps(result))


def run_engine(plan: Plan, configuration: str, folder: str) -> None:
    from sgl_proxythinker import ProxyConfig

    triple = Triple(*(Path(folder) / role for role in ROLES))
    proxy = ProxyConfig(expert_path=str(triple.expert), amateur_path=str(triple.amateur), speculate="off")
    measure_engine(
        plan,
        proxy if configuration == "guided" else None,
        model_path=str(triple.base),
        device="cpu",
        dtype="float32",
        disable_radix_cache=True,
        skip_server_warmup=True,
        max_running_requests=max(plan.batches),
    )


def measure(configuration: str, folder: str, out: Path, where: dict[str, Any]) -> dict[int, float]:
    """Milliseconds of a step by batch; each measurement is a line of `out` too."""
    command = [sys.executable, "-m", "benchmarks.cpu_cost", "--child", configuration, folder, *sys.argv[1:]]
    log = out.with_suffix(f".{configuration}.log")
    print(f"{configuration}: log in {log}", flush=True)
    milliseconds = {}
    for record in run_child(command, log):
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "benchmark": "cpu_cost", "conditions": where,
                "configuration": configuration, **record}  # fmt: skip
        with out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if record["kind"] == "decode":
            milliseconds[record["batch"]] = record["ms_per_step"]
            print(f"  batch {record['batch']}: {record['ms_per_step']} ms/step of {record['runs_ms']}", flush=True)
    return milliseconds


def row(batch: int, ms: dict[str, dict[int, float]]) -> dict[str, Any]:
    plain, guided = (round(batch * 1e3 / ms[name][batch], 1) for name in CONFIGURATIONS)
    return {"batch": batch, "plain": plain, "guided": guided, "guided_over_plain": round(guided / plain, 3)}


if __name__ == "__main__":
    main()
