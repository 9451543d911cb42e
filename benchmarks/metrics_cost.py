"""What counting for /metrics adds to the host's part of a step, with nothing else in the step.

    python -m benchmarks.metrics_cost --step-ms 17.7

The forwards do nothing, so what is timed is what lies around them: rows of a batch that stays the same are counted,
three models and their fusion are timed as often as in a server, with events where there is a GPU. Values go into files,
as those of several processes do. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from benchmarks.conditions import conditions
from benchmarks.fusion_cost import DEVICE, host_seconds, numbers
from sgl_proxythinker.guidance import CARRIED, Guidance
from sgl_proxythinker.metrics.forward_timer import EVERY
from sgl_proxythinker.placement import Placement
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT
from sgl_proxythinker.step.plan import StepInputs

STEPS = 20 * EVERY  # of a round: whole strides, of which each has one that is timed
ROLES = (BASE, EXPERT, AMATEUR)
EVERYWHERE = Placement("shared", 1, dict.fromkeys(ROLES, (0,)), "there is one rank")
DECODE = SimpleNamespace(
    forward_mode=SimpleNamespace(is_target_verify=lambda: False, is_decode=lambda: True)
)  # what of SGLang's ForwardBatch is read


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics_cost", description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=numbers, default=[1, 64])
    parser.add_argument("--step-ms", type=float, default=17.7, help="a short step, to take percents of (%(default)s)")
    parser.add_argument("--rounds", type=int, default=50, help=f"of {STEPS} steps each (%(default)s)")
    parser.add_argument("--commit", default=None)
    args = parser.parse_args()
    where = conditions(args.commit)
    print(f"{where['device']}, driver {where['driver']}, torch {where['torch']}, commit {where['commit']}")
    print(f"{'batch':>6}{'without us':>12}{'with us':>10}{'more us':>10}{'% of step':>11}")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        for place, batch in enumerate(args.batches):
            without, counted = (make_step(batch, labels) for labels in (None, {"model_name": f"step {place}"}))
            # In turn, and the shortest of each: others on the machine make some longer, and none shorter.
            rounds = [[1e6 * host_seconds(step, STEPS) for step in (without, counted)] for _ in range(args.rounds)]
            without_us, with_us = map(min, zip(*rounds, strict=True))
            percent = (with_us - without_us) / args.step_ms / 10
            print(f"{batch:>6}{without_us:>12.2f}{with_us:>10.2f}{with_us - without_us:>10.2f}{percent:>11.4f}")
            results.append({"batch": batch, "without_us": round(without_us, 2), "with_us": round(with_us, 2),
                            "percent_of_step": round(percent, 4)})  # fmt: skip
    print(json.dumps({"name": "metrics_cost", "conditions": where, "step_ms": args.step_ms, "results": results}))


def make_step(batch: int, labels: dict[str, Any] | None) -> Callable[[], None]:
    """A decode step of forwards that do nothing, half of its requests guided; without labels uncounted."""
    # After the folder is set: prometheus_client looks for it once.
    from sgl_proxythinker.metrics.steps import StepMetrics

    reqs = [_request(Guidance.of(0.5 * (place % 2), trace=not place)) for place in range(batch)]
    inputs = StepInputs((EXPERT, AMATEUR), DEVICE)
    models = {role: SimpleNamespace(forward=_nothing) for role in ROLES}

    def fused(forward_batch: Any) -> None:
        for model in models.values():
            model.forward(forward_batch)

    runner = SimpleNamespace(forward=fused)
    if labels is not None:
        worker = SimpleNamespace(
            ensemble=SimpleNamespace(models=models), model_runner=runner, inputs=inputs, rank=0, device=DEVICE
        )
        _metrics_of(StepMetrics, labels).watch(worker, EVERYWHERE)

    def step() -> None:
        with inputs.of(reqs, False):
            runner.forward(DECODE)

    return step


def _metrics_of(kind: Any, labels: dict[str, Any]) -> Any:
    """Names can be taken once in a process."""
    from prometheus_client import REGISTRY

    for collector in list(REGISTRY._collector_to_names):
        REGISTRY.unregister(collector)
    return kind(labels)


def _nothing(forward_batch: Any) -> None:
    """In the place of a model."""


def _request(guidance: Guidance) -> SimpleNamespace:
    """What of SGLang's `Req` a step reads."""
    params = SimpleNamespace(custom_params={CARRIED: tuple(guidance)})
    return SimpleNamespace(rid="r", sampling_params=params, extra_key=guidance.tree_key(None), origin_input_ids=[1])


if __name__ == "__main__":
    main()
