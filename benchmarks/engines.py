"""Time one engine from outside, in a process of its own: plain and guided are measured by the same calls.

The child starts the engine, times whole calls of `generate` and prints one record per measurement; the parent reads
them. SGLang's log, which tells what every step ran, goes to a file that the parent reads as well.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import forced_acceptance

_RECORD = "measured "
_MARK = "benchmark: "
_DECODE_LINE = re.compile(r"Decode batch.*#running-req: (\d+),.*graph: (\w+), gen throughput \(token/s\): ([\d.]+)")


# What requests ask for in turn, where a batch is to hold all laws of strength and all cuts.
LAWS: tuple[dict[str, Any], ...] = (
    {"proxy_alpha": 0.5},
    {"proxy_law": {"kind": "entropy", "above": 1.0}},
    {"proxy_law": {"kind": "divergence"}},
    {"proxy_law": {"kind": "schedule", "points": [[0, 1.0], [512, 0.3]]}},
    {"proxy_law": {"kind": "schedule", "after": {"text": "</think>", "alpha": 0.2}}},
    {"proxy_clip": 8.0},
    {"proxy_plausible": 0.01},
)


class Decode(NamedTuple):
    """One measurement of decoding steps."""

    batch: int  # requests that decode together
    temperature: float
    unguided: int = 0  # of them, requests at alpha 0 to a guided engine; the others don't name an alpha
    acceptance: float | None = None  # of each draft, forced
    has_laws: bool = False  # requests to a guided engine ask for `LAWS` in turn


@dataclass(frozen=True)
class Plan:
    """What is asked of every engine. Prompts are random ids, other ones in each call."""

    batches: tuple[int, ...]  # requests that decode together
    input_tokens: int
    output_tokens: int
    prefill: tuple[int, int] = (0, 0)  # requests, tokens each
    repeats: int = 3
    short_tokens: int = 16
    sampled: bool = True  # once more at temperature 1, at the largest batch
    alpha_zero: tuple[int, ...] = ()  # batches that a guided engine also decodes at alpha 0
    mixed: tuple[int, ...] = ()  # batches that a guided engine also decodes with half of the requests at alpha 0
    laws: tuple[int, ...] = ()  # batches that a guided engine also decodes with all laws of strength among them
    acceptances: tuple[float, ...] = ()  # each forced in turn on a guided engine; none: what the models accept
    prompt_ids: int = 151_643  # ids to draw prompts from

    def decodes(self, guided: bool) -> list[Decode]:
        """The decode measurements of a guided or a plain engine."""
        decodes = [Decode(batch, 0.0) for batch in self.batches]
        if guided:
            decodes += [Decode(batch, 0.0, batch) for batch in self.alpha_zero]
            decodes += [Decode(batch, 0.0, batch // 2) for batch in self.mixed]
            decodes += [Decode(batch, 0.0, has_laws=True) for batch in self.laws]
        decodes += [Decode(max(self.batches), 1.0)] if self.sampled else []
        forced = self.acceptances if guided and self.acceptances else (None,)
        return [decode._replace(acceptance=acceptance) for acceptance in forced for decode in decodes]

    @property
    def mean_context_tokens(self) -> float:
        """Tokens in front of an average step that is timed."""
        return self.input_tokens + self.short_tokens + self.output_tokens / 2


# In the child


def measure_engine(plan: Plan, proxy: Any, **engine_arguments: Any) -> None:
    """Start an engine, print its records, shut it down.

    Args:
        plan: what to measure.
        proxy: the engine's `ProxyConfig`, or None for plain SGLang.
        engine_arguments: further arguments of `Engine`.
    """
    from sgl_proxythinker import Engine

    begin = time.perf_counter()
    engine = Engine(proxy=proxy, log_level="info", **engine_arguments)
    info = engine.get_server_info()
    tokens = info["max_total_num_tokens"]
    _print_record(
        kind="start",
        start_s=round(time.perf_counter() - begin, 1),
        tokens=tokens,
        capped=engine_arguments.get("max_total_tokens") is not None or info["device"] == "cpu",
        mem_fraction_static=info["mem_fraction_static"],
        memory_usage=info["internal_states"][0]["memory_usage"],
    )
    client = Client(engine, plan, guided=proxy is not None)
    for decode in plan.decodes(guided=proxy is not None):
        needed = decode.batch * (plan.input_tokens + plan.short_tokens + plan.output_tokens)
        if needed > tokens:
            print(f"batch {decode.batch} needs {needed:,} tokens and {tokens:,} fit: left out", flush=True)
            continue
        _print_record(kind="decode", **decode._asdict(), **client.decode(decode))
    if all(plan.prefill):
        _print_record(kind="prefill", **client.prefill(*plan.prefill))
    engine.shutdown()
    _print_record(kind="done")


class Client:
    """Sends whole batches to an engine and waits for them.

    Args:
        engine: the engine.
        plan: lengths and repeats.
        guided: answers must say which of them were guided, or the wrong thing is being timed.
    """

    def __init__(self, engine: Any, plan: Plan, guided: bool):
        self.engine, self.plan, self.guided = engine, plan, guided
        self._random = random.Random(0)

    def decode(self, decode: Decode) -> dict[str, Any]:
        """Milliseconds of a step at full batch, from two calls whose outputs differ by `output_tokens` steps.

        Tokenizing, prefill, and the steps in which requests arrive and leave are in both calls and cancel.
        """
        plan = self.plan
        if decode.acceptance is not None:
            forced_acceptance.force(decode.acceptance)
        self._seconds(decode, plan.input_tokens, plan.short_tokens)
        # From here the log's lines belong to this measurement.
        print(_MARK + " ".join(map(str, decode)), file=sys.stderr, flush=True)
        runs = []
        for _ in range(plan.repeats):
            short, long = (
                self._seconds(decode, plan.input_tokens, tokens)
                for tokens in (plan.short_tokens, plan.short_tokens + plan.output_tokens)
            )
            runs.append(round((long - short) / plan.output_tokens * 1e3, 3))
        return {"ms_per_step": round(median(runs), 3), "runs_ms": runs}

    def prefill(self, requests: int, tokens: int) -> dict[str, Any]:
        """Seconds until the last of `requests` prompts has its first token."""
        print(f"{_MARK}prefill", file=sys.stderr, flush=True)
        self._seconds(Decode(requests, 0.0), tokens, 1)
        runs = [round(self._seconds(Decode(requests, 0.0), tokens, 1), 4) for _ in range(self.plan.repeats)]
        seconds = round(median(runs), 4)
        return {"prompt_tokens": requests * tokens, "seconds": seconds, "runs_s": runs,
                "tokens_per_s": round(requests * tokens / seconds)}  # fmt: skip

    def _seconds(self, decode: Decode, input_tokens: int, output_tokens: int) -> float:
        draw, ids = self._random.randrange, self.plan.prompt_ids
        prompts = [[draw(ids) for _ in range(input_tokens)] for _ in range(decode.batch)]
        unguided = spread(decode.unguided, decode.batch)
        asked = [
            {"proxy_alpha": 0} if row_unguided else LAWS[row % len(LAWS)] if decode.has_laws else None
            for row, row_unguided in enumerate(unguided)
        ]
        sampling = [
            {"temperature": decode.temperature, "max_new_tokens": output_tokens, "ignore_eos": True}
            | ({} if custom_params is None else {"custom_params": custom_params})
            for custom_params in asked
        ]
        begin = time.perf_counter()
        outputs = self.engine.generate(input_ids=prompts, sampling_params=sampling)
        seconds = time.perf_counter() - begin
        for output, row_unguided in zip(outputs, unguided, strict=True):
            meta, guided = output["meta_info"], self.guided and not row_unguided
            # Beside a schedule the strength is null.
            if meta["completion_tokens"] != output_tokens or (meta["proxy_alpha"] != 0) != guided:
                raise RuntimeError(f"asked for {output_tokens} tokens with guided={guided}, got {meta}")
        return seconds


def spread(count: int, rows: int) -> list[bool]:
    """Which of `rows` rows are chosen, if `count` are, evenly: a batch is no two blocks, as arrivals are not."""
    return [(row + 1) * count // rows > row * count // rows for row in range(rows)]


def _marked(batch: str, temperature: str, unguided: str, acceptance: str, has_laws: str) -> Decode:
    forced = None if acceptance == "None" else float(acceptance)
    return Decode(int(batch), float(temperature), int(unguided), forced, has_laws == "True")


def _print_record(**record: Any) -> None:
    print(_RECORD + json.dumps(record), flush=True)


# In the parent


def run_child(command: list[str], log: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a child that calls `measure_engine`; its other lines are shown as they come.

    Args:
        command: what to run. Its standard error, with SGLang's log, goes to `log`.
        log: the file.

    Raises:
        SystemExit: the child ended before its engine was shut down; the message ends with the log's last lines.
    """
    done = False
    with log.open("w") as errors:
        # A group of its own, so that schedulers that outlive a crash can be ended with it; not a session of its own,
        # which would outlive a command that ran into its time limit.
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, process_group=0)
    try:
        for line in child.stdout:
            record = json.loads(line[len(_RECORD) :]) if line.startswith(_RECORD) else None
            if record is None:
                print(line, end="", flush=True)
            elif record["kind"] == "done":
                done = True
                break
            else:
                yield record
        if done:
            child.wait(timeout=60)
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
    if not done:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
        raise SystemExit(f"{' '.join(command)} ended early, status {child.returncode}. The end of {log}:\n{tail}")


def read_memory(log: Path) -> dict[str, Any]:
    """What the start says about rank 0's memory, in SGLang's GB, which are GiB.

    Returns:
        `free_before_gib` in front of the first weight; `weights_gib` per role and their sum; for a guided engine
        `token_bytes` likewise. A plain engine's role is `base`.
    """
    text = log.read_text(errors="replace")
    rank_0 = [line for line in text.splitlines() if not re.search(r" TP[1-9]\d*\]", line)]
    begin = next(match for line in rank_0 if (match := re.search(r"Load weight begin. avail mem=([\d.]+)", line)))
    memory: dict[str, Any] = {"free_before_gib": float(begin[1])}
    if table := re.findall(r"^0 +(base|expert|amateur|sum) +([\d.]+) +([\d,]+) ", text, re.MULTILINE):
        memory["weights_gib"] = {name: float(weights) for name, weights, _ in table}
        memory["token_bytes"] = {name: int(per_token.replace(",", "")) for name, _, per_token in table}
    else:
        used = next(match for line in rank_0 if (match := re.search(r"Load weight end.*mem usage=([\d.]+)", line)))
        memory["weights_gib"] = {"base": float(used[1]), "sum": float(used[1])}
    return memory


def read_steps(log: Path) -> dict[Decode, dict[str, Any]]:
    """What the scheduler says it ran, per measurement of `Client.decode`.

    Returns:
        `lines` that report a decode batch, how many of them were `full` and `graphed`, and `ms_per_step` by the
        scheduler's own throughput in full batches, which must agree with what was timed from outside.
    """
    steps: dict[Decode, dict[str, Any]] = {}
    current, times = None, []
    for line in log.read_text(errors="replace").splitlines():
        if line.startswith(_MARK):
            words = line[len(_MARK) :].split()
            current = _marked(*words) if len(words) == len(Decode._fields) else None
            if current:
                times = []
                steps[current] = {"lines": 0, "full": 0, "graphed": 0, "ms_per_step": None}
        found = _DECODE_LINE.search(line)
        if found and current:
            seen, running = steps[current], int(found[1])
            seen["lines"] += 1
            seen["full"] += running == current.batch
            seen["graphed"] += found[2] == "True"
            if running == current.batch and float(found[3]):
                times.append(1e3 * running / float(found[3]))
                seen["ms_per_step"] = round(median(times), 3)
    return steps
