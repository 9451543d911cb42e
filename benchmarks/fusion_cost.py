"""What adding three models' logits and finding broken rows costs, by the kernel and by its specification in torch.

    python -m benchmarks.fusion_cost --step-ms 1:27.9,8:29.1,32:31.2,64:32.9

`gpu us` is the device's time with cold caches and no gaps between kernels; `host us` is what the scheduler's thread
spends launching them, which overlap hides while the models run. Logits come whole, or in two shards as two ranks send
them. Each answer is compared with float64 before it is timed. The last line printed is JSON. Without a GPU the
specification is timed alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from benchmarks.conditions import conditions, time_call
from benchmarks.weightless import DIMENSIONS, KNOWN_IDS
from sgl_proxythinker.step.fusion import fuse_in_torch, fuse_logits
from sgl_proxythinker.step.logits import FusedLogits, ShardedLogits, WeightedPair

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
FLOAT32_BYTES = 4
# On a GPU `fuse_logits` is the kernel.
CANDIDATES = ({"kernel": fuse_logits} if CUDA else {}) | {"specification": fuse_in_torch}

Fuse = Callable[..., FusedLogits]


class Step(NamedTuple):
    """The arguments of one step's `fuse_logits`, as the worker has them when every request is guided."""

    base: ShardedLogits  # N rows
    pairs: list[WeightedPair]  # expert and amateur, of N rows
    batch: int  # N
    vocab_size: int
    width: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fusion_cost", description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=numbers, default=[1, 8, 32, 64])
    parser.add_argument("--shards", type=numbers, default=[1, 2])
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the logits")
    parser.add_argument("--base", choices=DIMENSIONS, default="32B")
    parser.add_argument("--proxy", choices=DIMENSIONS, default="7B")
    parser.add_argument("--step-ms", type=step_times, default={}, metavar="1:27.9,8:29.1", help="to take percents of")
    parser.add_argument("--repeats", type=int, default=50 if CUDA else 3)
    parser.add_argument("--commit", default=None)
    args = parser.parse_args()

    where = conditions(args.commit)
    columns, proxy_columns = DIMENSIONS[args.base].head_rows, DIMENSIONS[args.proxy].head_rows
    print(
        f"{where['device']}, driver {where['driver']}, torch {where['torch']}, commit {where['commit']}\n"
        f"{args.dtype} logits, base {columns:,} and proxies {proxy_columns:,} columns, {KNOWN_IDS:,} known; "
        f"a copy moves {where['copy_tb_per_s']} TB/s"
    )
    results = []
    for shards in args.shards:
        for batch in args.batches:
            step = make_step(batch, shards, columns, proxy_columns, getattr(torch, args.dtype))
            for fuse in CANDIDATES.values():
                check(fuse, step)
            results.append(measure(step, where, args.repeats, args.step_ms.get(batch)))
    print_table(results)
    print(json.dumps({"name": "fusion_cost", "conditions": where, "results": results}))


def numbers(text: str) -> list[int]:
    return list(map(int, text.split(",")))


def step_times(text: str) -> dict[int, float]:
    return {int(batch): float(ms) for batch, ms in (entry.split(":") for entry in text.split(","))}


def make_step(batch: int, shards: int, columns: int, proxy_columns: int, dtype: torch.dtype) -> Step:
    generator = torch.Generator(DEVICE).manual_seed(batch)
    models = []
    for width in (columns, proxy_columns, proxy_columns):
        if width % shards:
            raise ValueError(f"{width} columns can't be cut in {shards} equal shards")
        logits = 5 * torch.randn(shards, batch, width // shards, device=DEVICE, generator=generator)
        models.append(ShardedLogits(logits.to(dtype)))
    weights = torch.rand(batch, device=DEVICE, generator=generator).repeat(2, 1)
    base, expert, amateur = models
    every_row = torch.arange(batch, device=DEVICE)
    pair = WeightedPair(expert, amateur, weights, every_row, every_row)
    return Step(base, [pair], batch, KNOWN_IDS, columns)


def check(fuse: Fuse, step: Step) -> None:
    """Raise unless the answer is the formula's in float64: a wrong answer is not worth timing."""
    fused, sound = fuse(*step)
    [pair] = step.pairs
    models = step.base, pair.plus, pair.minus
    base, expert, amateur = (model.rows(pair.plus_rows, KNOWN_IDS).double() for model in models)
    alpha = pair.weights[0].double()[:, None]
    torch.testing.assert_close(fused[:, :KNOWN_IDS].double(), base + alpha * (expert - amateur), rtol=1e-6, atol=1e-5)
    if not (sound.all() and (fused[:, KNOWN_IDS:] == -torch.inf).all()):
        raise AssertionError("sound rows count as broken, or padding columns could be sampled")
    broken = step.base.shards.clone()
    broken[0, 0, 7] = torch.nan
    fused, sound = fuse(*step._replace(base=ShardedLogits(broken)))
    if sound[0] or not sound[1:].all() or fused[:, :KNOWN_IDS].isnan().any():
        raise AssertionError("a broken row is not found, or not made safe")


def measure(step: Step, where: dict[str, Any], repeats: int, step_ms: float | None) -> dict[str, Any]:
    """Microseconds of each candidate on the device and on the host, and what the bytes alone would take."""
    # Larger than the L2 cache, and long enough to clear for all launches to be queued behind it.
    scratch = torch.empty(1 << 30 if CUDA else 1, dtype=torch.int8, device=DEVICE)
    calls = {name: lambda fuse=fuse: fuse(*step) for name, fuse in CANDIDATES.items()}
    shards, batch, _ = step.base.shards.shape
    # Each model's row read once, the fused row written.
    ceiling_bytes = batch * (3 * KNOWN_IDS * step.base.shards.element_size() + step.width * FLOAT32_BYTES)
    result = {
        "batch": batch,
        "shards": shards,
        "dtype": str(step.base.shards.dtype).removeprefix("torch."),
        "gpu_us": {name: round(1e6 * time_call(call, repeats, scratch.zero_), 1) for name, call in calls.items()},
        "host_us": {name: round(1e6 * host_seconds(call, repeats), 1) for name, call in calls.items()},
        "ceiling_us": round(ceiling_bytes / where["copy_tb_per_s"] / 1e6, 1),
    }
    if step_ms:
        percents = {name: round(us / step_ms / 10, 2) for name, us in result["gpu_us"].items()}
        result |= {"step_ms": step_ms, "percent_of_step": percents}
    return result


def host_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Mean seconds until `call` returns, the device being idle at first."""
    if CUDA:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    seconds = (time.perf_counter() - begin) / repeats
    if CUDA:
        torch.cuda.synchronize()
    return seconds


def print_table(results: list[dict[str, Any]]) -> None:
    print(
        f"{'shards':>6}{'batch':>6}{'ceiling us':>12}  {'candidate':<14}{'gpu us':>10}{'host us':>10}{'% of step':>11}"
    )
    for row in results:
        for name in CANDIDATES:
            percent = row.get("percent_of_step", {}).get(name, "-")
            print(
                f"{row['shards']:>6}{row['batch']:>6}{row['ceiling_us']:>12.1f}  {name:<14}"
                f"{row['gpu_us'][name]:>10.1f}{row['host_us'][name]:>10.1f}{percent:>11}"
            )


if __name__ == "__main__":
    main()
