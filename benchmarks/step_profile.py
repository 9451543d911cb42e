"""Where the time of a decode step goes, kernel by kernel and stream by stream, on each rank.

    python -m benchmarks.step_profile --base 32B --proxy 7B --batches 1,64
    python -m benchmarks.step_profile --tp-size 2 --placement split
    python -m benchmarks.step_profile --speculate 3

A guided engine of weightless models decodes while torch's profiler, which SGLang starts on every rank, records what the
GPU does. A step ends with the kernel that fuses the logits; what lies between two of those is one step, or one cycle of
--speculate. Prints a table for each batch and rank, and a JSON line that ends the output.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.weightless import DIMENSIONS, write_weightless

# The first that a kernel's name holds tells what it is for.
KINDS = (
    ("all-reduce", ("all_reduce", "allreduce", "cross_device_reduce", "AllReduce")),
    ("all-gather, broadcast", ("AllGather", "Broadcast", "all_gather", "multimem")),
    ("attention", ("flash", "Flash", "fmha", "attention", "decode_", "prepare_varlen")),
    ("matrices", ("gemm", "Gemm", "nvjet", "cutlass", "sm90_", "splitK", "gemv", "cublas")),
    ("copies", ("Memcpy", "Memset", "memcpy", "memset")),
    ("norms, activations, rotations", ("norm", "Norm", "silu", "act_and_mul", "rotary", "rope", "fused")),
)
TRACES = "*-DECODE.trace.json.gz"  # SGLang writes one for each rank
FUSION = ("_fuse", "_neutralize")
STEP_END = "_neutralize"  # the last launch of fusion, once a step


class Kernel(NamedTuple):
    name: str
    stream: int
    start_us: float
    end_us: float


def main() -> None:
    args = parse_args()
    folders = {
        role: str(write_weightless(args.models / f"{name}-{role}", name))
        for role, name in (("base", args.base), ("expert", args.proxy), ("amateur", args.proxy))
    }
    engine = start_engine(args, folders)
    results = []
    try:
        for batch in args.batches:
            with tempfile.TemporaryDirectory() as folder:
                decode_under_profiler(engine, batch, args, folder)
                for rank, trace in enumerate(sorted(Path(folder).glob(TRACES))):
                    summary = {"batch": batch, "rank": rank} | summarize(read_kernels(trace))
                    show(summary)
                    results.append(summary)
    finally:
        engine.shutdown()
    setting = {name: getattr(args, name) for name in ("base", "proxy", "tp_size", "placement", "speculate", "commit")}
    print(json.dumps({"name": "step_profile", "setting": setting, "results": results}))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_profile", description=__doc__.splitlines()[0])
    parser.add_argument("--base", choices=DIMENSIONS, default="32B")
    parser.add_argument("--proxy", choices=DIMENSIONS, default="7B")
    parser.add_argument("--tp-size", type=int, default=1)
    parser.add_argument("--placement", default=None)
    parser.add_argument("--speculate", type=int, default=0, metavar="K")
    parser.add_argument("--batches", type=lambda text: tuple(map(int, text.split(","))), default=(1, 64))
    parser.add_argument("--input-len", type=int, default=256)
    parser.add_argument("--steps", type=int, default=16, help="recorded steps")
    parser.add_argument("--attention-backend", default="fa3")
    parser.add_argument("--models", type=Path, default=Path("models/weightless"))
    parser.add_argument("--commit", default=None)
    return parser.parse_args()


def start_engine(args: argparse.Namespace, folders: dict[str, str]) -> Any:
    from sgl_proxythinker import Engine, ProxyConfig

    return Engine(
        model_path=folders["base"],
        proxy=ProxyConfig(
            expert_path=folders["expert"],
            amateur_path=folders["amateur"],
            placement=args.placement,
            speculate=args.speculate,
        ),
        tp_size=args.tp_size, load_format="dummy", dtype="bfloat16", sampling_backend="pytorch",
        attention_backend=args.attention_backend, disable_radix_cache=True, skip_server_warmup=True,
        cuda_graph_bs_decode=list(args.batches), max_running_requests=max(args.batches), random_seed=0,
    )  # fmt: skip


def decode_under_profiler(engine: Any, batch: int, args: argparse.Namespace, folder: str) -> None:
    """Leave a trace of each rank in `folder`."""
    prompts = [[17 + row] * args.input_len for row in range(batch)]
    sampling = {"temperature": 0, "max_new_tokens": 96, "ignore_eos": True}
    engine.generate(input_ids=prompts, sampling_params=sampling | {"max_new_tokens": 8})
    engine.start_profile(output_dir=folder, activities=["GPU"], num_steps=args.steps, profile_by_stage=True)
    engine.generate(input_ids=prompts, sampling_params=sampling)
    deadline = time.monotonic() + 60
    while len(list(Path(folder).glob(TRACES))) < args.tp_size and time.monotonic() < deadline:
        time.sleep(0.5)


def read_kernels(trace: Path) -> list[Kernel]:
    """What ran on the GPU, in order of its start."""
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    kernels = [
        Kernel(event["name"], event["args"].get("stream", -1), event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("ph") == "X" and event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")
    ]
    return sorted(kernels, key=lambda kernel: kernel.start_us)


def summarize(kernels: list[Kernel]) -> dict[str, Any]:
    """The median step.

    Returns:
        Microseconds: `step`, from fusion to fusion; `busy`, in which some kernel runs; `idle`; `together`, in which two
        streams run kernels; `alone`, from the start until a second stream begins (a cycle's drafts), and
        `alone_idle`, in which no kernel runs then; per stream the time its kernels take, and per kind over all streams.
    """
    ends = [kernel.end_us for kernel in kernels if kernel.name == STEP_END]
    steps = []
    for begin, end in zip(ends, ends[1:], strict=False):
        inside = [kernel for kernel in kernels if begin <= kernel.start_us < end]
        streams, kinds = defaultdict(float), defaultdict(float)
        for kernel in inside:
            streams[str(kernel.stream)] += kernel.end_us - kernel.start_us
            kinds[kind_of(kernel.name)] += kernel.end_us - kernel.start_us
        busy, together = covered_us((kernel.start_us, kernel.end_us) for kernel in inside)
        first = next((kernel.start_us for kernel in inside if kernel.stream != inside[0].stream), end)
        drafts, _ = covered_us((kernel.start_us, kernel.end_us) for kernel in inside if kernel.start_us < first)
        steps.append({"step": end - begin, "busy": busy, "idle": end - begin - busy, "together": together,
                      "alone": first - begin, "alone_idle": first - begin - drafts,
                      "streams": dict(streams), "kinds": dict(kinds), "kernels": len(inside)})  # fmt: skip
    if not steps:
        return {"steps": 0}
    typical = sorted(steps, key=lambda step: step["step"])[len(steps) // 2]
    rounded = {
        name: {part: round(us, 1) for part, us in value.items()} if isinstance(value, dict) else round(value, 1)
        for name, value in typical.items()
    }
    return {"steps": len(steps), "median_step": round(median(step["step"] for step in steps), 1)} | rounded


def kind_of(name: str) -> str:
    if name in FUSION:
        return "fusion"
    return next((kind for kind, parts in KINDS if any(part in name for part in parts)), "other")


def covered_us(spans: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """How long at least one, and at least two, of these spans last."""
    edges = sorted((at, change) for start, end in spans for at, change in ((start, 1), (end, -1)))
    one = two = 0.0
    depth, before = 0, None
    for at, change in edges:
        if before is not None:
            one += (at - before) * (depth >= 1)
            two += (at - before) * (depth >= 2)
        depth, before = depth + change, at
    return one, two


def show(summary: dict[str, Any]) -> None:
    if not summary["steps"]:
        print(f"batch {summary['batch']} rank {summary['rank']}: no step was recorded", flush=True)
        return
    print(
        f"batch {summary['batch']} rank {summary['rank']}: step {summary['step']:.0f} us, busy {summary['busy']:.0f}, "
        f"idle {summary['idle']:.0f}, two streams at once {summary['together']:.0f}, one alone for the first "
        f"{summary['alone']:.0f}, idle in {summary['alone_idle']:.0f} of them, {summary['kernels']:.0f} kernels"
    )
    for name in ("streams", "kinds"):
        parts = sorted(summary[name].items(), key=lambda part: -part[1])
        print(f"  {name}: " + ", ".join(f"{part} {us:.0f}" for part, us in parts), flush=True)


if __name__ == "__main__":
    main()
