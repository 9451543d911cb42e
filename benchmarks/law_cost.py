"""What laws of strength, cuts and more experts add to the fusion of a step, each alone and all in one batch.

    python -m benchmarks.law_cost --step-ms 1:23,64:29                # on a GPU
    python -m benchmarks.law_cost --batches 4 --base tiny --proxy tiny # to rehearse, in torch on a CPU

`gpu us` is the device's time with cold caches and no gaps between kernels; `host us` is what the scheduler's thread
spends launching them. The first row is the constant strength, which every other one is over. The last line printed is
JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.conditions import conditions, time_call
from benchmarks.engines import LAWS
from benchmarks.fusion_cost import CUDA, DEVICE, host_seconds, numbers, step_times
from benchmarks.weightless import DIMENSIONS, KNOWN_IDS
from sgl_proxythinker.guidance import Defaults, read_guidance
from sgl_proxythinker.roles import BASE, Role
from sgl_proxythinker.step.fusion import fuse_logits
from sgl_proxythinker.step.law_strengths import law_weights
from sgl_proxythinker.step.logits import ShardedLogits, WeightedPair
from sgl_proxythinker.step.markers import WrittenTexts
from sgl_proxythinker.step.plan import Step, StepInputs
from sgl_proxythinker.step.plausible import attach_plausible, cut_implausible

PAIRS = {"expert": "amateur", "math": "amateur"}
HALF = Defaults(0.5)
WISHES: dict[str, tuple[dict[str, Any], ...]] = {
    "constant": ({"proxy_alpha": 0.5},),
    "entropy": (LAWS[1],),
    "divergence": (LAWS[2],),
    "schedule": (LAWS[3],),
    "marker": (LAWS[4],),
    "clip": (LAWS[5],),
    "plausible": (LAWS[6],),
    "all laws": LAWS,
    "two experts": ({"proxy_experts": {"expert": 0.4, "math": 0.3}},),
}
TOKEN = b" word"  # what each id stands for: markers compare bytes, whatever they are


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.law_cost", description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=numbers, default=[1, 8, 64])
    parser.add_argument("--base", choices=DIMENSIONS, default="32B")
    parser.add_argument("--proxy", choices=DIMENSIONS, default="7B")
    parser.add_argument("--step-ms", type=step_times, default={}, metavar="1:23,64:29", help="to take percents of")
    parser.add_argument("--repeats", type=int, default=50 if CUDA else 3)
    parser.add_argument("--commit", default=None)
    args = parser.parse_args()

    where = conditions(args.commit)
    print(f"{where['device']}, driver {where['driver']}, torch {where['torch']}, commit {where['commit']}")
    print(f"{'batch':>6}  {'requests':<12}{'gpu us':>10}{'over constant':>15}{'host us':>10}{'% of step':>11}")
    results = []
    for batch in args.batches:
        logits = make_logits(batch, DIMENSIONS[args.base].head_rows, DIMENSIONS[args.proxy].head_rows)
        constant_us = 0.0
        for name, wishes in WISHES.items():
            run = make_step(batch, wishes, logits)
            gpu_us, host_us = measure(run, args.repeats)
            constant_us = constant_us or gpu_us
            more_us = gpu_us - constant_us
            percent = round(more_us / args.step_ms[batch] / 10, 2) if batch in args.step_ms else None
            results.append({"batch": batch, "requests": name, "gpu_us": round(gpu_us, 1), "more_us": round(more_us, 1),
                            "host_us": round(host_us, 1), "percent_of_step": percent})  # fmt: skip
            shown = "-" if percent is None else percent
            print(f"{batch:>6}  {name:<12}{gpu_us:>10.1f}{more_us:>15.1f}{host_us:>10.1f}{shown:>11}")
    print(json.dumps({"name": "law_cost", "conditions": where, "results": results}))


def make_logits(batch: int, columns: int, proxy_columns: int) -> dict[Role, ShardedLogits]:
    """Random rows of the base and of each small model."""
    generator = torch.Generator(DEVICE).manual_seed(batch)
    widths = {BASE: columns} | {Role(name): proxy_columns for name in {*PAIRS, *PAIRS.values()}}
    return {
        role: ShardedLogits.whole(5 * torch.randn(batch, width, device=DEVICE, generator=generator))
        for role, width in widths.items()
    }


def make_step(batch: int, wishes: tuple[dict[str, Any], ...], logits: dict[Role, ShardedLogits]) -> Callable[[], None]:
    """What a decode step does between the models and the sampler, for requests that ask for these in turn."""
    guidances = [read_guidance(wishes[row % len(wishes)], HALF, PAIRS) for row in range(batch)]
    small = [role for role in logits if role != BASE]
    step = StepInputs(small, DEVICE).on_device(
        guidances, [guidance.reads for guidance in guidances], prompt_tokens=[256] * batch
    )
    known = min(KNOWN_IDS, *(rows.shards.shape[-1] for rows in logits.values()))
    written = WrittenTexts([TOKEN] * known, batch, DEVICE)
    read = SimpleNamespace(
        req_pool_indices=torch.arange(batch, device=DEVICE),
        forward_mode=SimpleNamespace(is_decode=lambda: True),
        input_ids=torch.arange(batch, device=DEVICE),
        reqs=guidances,
    )
    lengths = torch.full((batch,), 300, device=DEVICE)

    def run() -> None:
        past = None if step.marked is None else written.read(step.marked, read)
        pairs = weighted_pairs(step, logits, lengths, past, known)
        fused = fuse_logits(logits[BASE], pairs, batch, known, logits[BASE].shards.shape[-1])
        if step.plausible is not None:
            output = SimpleNamespace(next_token_logits=fused.logits)
            attach_plausible(output, step.plausible, logits[BASE], known)
            cut_implausible(output, None)

    return run


def weighted_pairs(
    step: Step, logits: dict[Role, ShardedLogits], lengths: torch.Tensor, past: torch.Tensor | None, known: int
) -> list[WeightedPair]:
    pairs = []
    for (plus, minus), weights, laws in zip(step.pairs, step.weights, step.laws, strict=True):
        if laws is not None:
            weights = law_weights(laws, weights, lengths, logits, known, past)
        of_plus, of_minus = step.runs[plus].rows_on_device, step.runs[minus].rows_on_device
        pairs.append(WeightedPair(logits[plus], logits[minus], weights, of_plus, of_minus, step.clips))
    return pairs


def measure(run: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Microseconds on the device and on the host."""
    # Larger than the L2 cache, and long enough to clear for all launches to be queued behind it.
    scratch = torch.empty(1 << 30 if CUDA else 1, dtype=torch.int8, device=DEVICE)
    return 1e6 * time_call(run, repeats, scratch.zero_), 1e6 * host_seconds(run, repeats)


if __name__ == "__main__":
    main()
