"""What adding three models' logits costs: the copies, the formula and the check for broken rows, at real widths.

    python -m benchmarks.fusion_cost --step-ms 1:27.9,8:29.1,32:31.2,64:32.9

`gpu us` is the device's time with cold caches and no gaps between kernels; `host us` is what the scheduler's thread
spends launching them, which overlap hides while the models run. The answer is compared with float64 before it is
timed. The last line printed is JSON.
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
from sgl_proxythinker.fusion import fuse_logits, neutralize_broken_rows_

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
FLOAT32_BYTES = 4


# The usual batch: every request is guided, and none gives the amateur a weight of its own.
KNOWN_TO_THE_WORKER = {"one_alpha": True, "all_guided": True}


class Logits(NamedTuple):
    """One step's inputs, as the worker has them."""

    base: torch.Tensor  # [B, V] float32
    expert: torch.Tensor  # [B, W] float32
    amateur: torch.Tensor  # [B, W] float32
    expert_weight: torch.Tensor  # [B] float32
    amateur_weight: torch.Tensor  # [B] float32


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fusion_cost", description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=lambda text: list(map(int, text.split(","))), default=[1, 8, 32, 64])
    parser.add_argument("--base", choices=DIMENSIONS, default="32B")
    parser.add_argument("--proxy", choices=DIMENSIONS, default="7B")
    parser.add_argument("--step-ms", type=step_times, default={}, metavar="1:27.9,8:29.1", help="to take percents of")
    parser.add_argument("--repeats", type=int, default=50 if CUDA else 3)
    parser.add_argument("--commit", default=None)
    args = parser.parse_args()

    where = conditions(args.commit)
    rows, proxy_rows = DIMENSIONS[args.base].head_rows, DIMENSIONS[args.proxy].head_rows
    print(
        f"{where['device']}, driver {where['driver']}, torch {where['torch']}, commit {where['commit']}\n"
        f"float32 logits, base {rows:,} and proxies {proxy_rows:,} columns, {KNOWN_IDS:,} known; "
        f"a copy moves {where['copy_tb_per_s']} TB/s"
    )
    results = []
    for batch in args.batches:
        logits = make_logits(batch, rows, proxy_rows)
        check(logits)
        results.append(measure(logits, where, args.repeats, args.step_ms.get(batch)))
    print_table(results)
    print(json.dumps({"name": "fusion_cost", "conditions": where, "results": results}))


def step_times(text: str) -> dict[int, float]:
    return {int(batch): float(ms) for batch, ms in (entry.split(":") for entry in text.split(","))}


def make_logits(batch: int, rows: int, proxy_rows: int) -> Logits:
    generator = torch.Generator(DEVICE).manual_seed(batch)
    base, expert, amateur = (
        5 * torch.randn(batch, width, device=DEVICE, generator=generator) for width in (rows, proxy_rows, proxy_rows)
    )
    alpha = torch.rand(batch, device=DEVICE, generator=generator)
    return Logits(base, expert, amateur, alpha, alpha.clone())


def copy_proxies(logits: Logits) -> tuple[torch.Tensor, torch.Tensor]:
    """What `ProxyModel.logits` does to the shared output buffer of the decode graphs, once per proxy."""
    return logits.expert[:, :KNOWN_IDS].clone(), logits.amateur[:, :KNOWN_IDS].clone()


def step(logits: Logits) -> tuple[torch.Tensor, torch.Tensor]:
    """All that guidance adds to a step besides the two models."""
    expert, amateur = copy_proxies(logits)
    weights = logits.expert_weight, logits.amateur_weight
    fused = fuse_logits(logits.base, expert, amateur, *weights, KNOWN_IDS, **KNOWN_TO_THE_WORKER)
    return fused, neutralize_broken_rows_(fused, KNOWN_IDS)


def check(logits: Logits) -> None:
    """Raise unless the step's answer is the formula's in float64: a wrong answer is not worth timing."""
    fused, sound = step(logits)
    base, expert, amateur = (part[:, :KNOWN_IDS].double() for part in logits[:3])
    alpha = logits.expert_weight.double()[:, None]
    torch.testing.assert_close(fused[:, :KNOWN_IDS].double(), base + alpha * (expert - amateur), rtol=1e-6, atol=1e-5)
    if not (sound.all() and (fused[:, KNOWN_IDS:] == -torch.inf).all()):
        raise AssertionError("sound rows count as broken, or padding columns could be sampled")
    broken = logits.base.clone()
    broken[0, 7] = torch.nan
    fused, sound = step(logits._replace(base=broken))
    if sound[0] or not sound[1:].all() or fused[:, :KNOWN_IDS].isnan().any():
        raise AssertionError("a broken row is not found, or not made safe")


def measure(logits: Logits, where: dict[str, Any], repeats: int, step_ms: float | None) -> dict[str, Any]:
    """Microseconds of the step and of its parts; `fuse_logits` and the rest read what the part before them wrote."""
    expert, amateur = copy_proxies(logits)
    fuse_inputs = (logits.base, expert, amateur, logits.expert_weight, logits.amateur_weight, KNOWN_IDS)
    fused = fuse_logits(*fuse_inputs, **KNOWN_TO_THE_WORKER)
    parts: dict[str, Callable[[], Any]] = {
        "copies": lambda: copy_proxies(logits),
        "fuse": lambda: fuse_logits(*fuse_inputs, **KNOWN_TO_THE_WORKER),
        "fuse_mixed": lambda: fuse_logits(*fuse_inputs),
        "broken_rows": lambda: neutralize_broken_rows_(fused, KNOWN_IDS),
        "step": lambda: step(logits),
    }
    # Larger than the L2 cache, and long enough to clear for all launches to be queued behind it.
    scratch = torch.empty(1 << 30 if CUDA else 1, dtype=torch.int8, device=DEVICE)
    batch, rows = logits.base.shape
    ceiling_bytes = FLOAT32_BYTES * batch * (3 * KNOWN_IDS + rows)  # each model's row read once, the fused row written
    result = {
        "batch": batch,
        "gpu_us": {name: round(1e6 * time_call(part, repeats, scratch.zero_), 1) for name, part in parts.items()},
        "host_us": round(1e6 * host_seconds(parts["step"], repeats), 1),
        "ceiling_us": round(ceiling_bytes / where["copy_tb_per_s"] / 1e6, 1),
    }
    if step_ms:
        result |= {"step_ms": step_ms, "percent_of_step": round(result["gpu_us"]["step"] / step_ms / 10, 2)}
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
    names = ("copies", "fuse", "broken_rows", "step")
    print(
        f"{'batch':>5}" + "".join(f"{name + ' us':>16}" for name in (*names, "ceiling", "host")) + f"{'% of step':>12}"
    )
    for row in results:
        times = (*(row["gpu_us"][name] for name in names), row["ceiling_us"], row["host_us"])
        print(
            f"{row['batch']:>5}"
            + "".join(f"{value:>16.1f}" for value in times)
            + f"{row.get('percent_of_step', '-'):>12}"
        )


if __name__ == "__main__":
    main()
