"""A piece of a setting, evaluated in a process of its own: its log is inspect-ai's, from which it also goes on.

inspect-ai takes about 15 ms of one core for a sample, so that several processes have to ask one server.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from inspect_ai import eval_set
from inspect_ai.event import ModelEvent
from inspect_ai.hooks import Hooks, SampleEnd, hooks
from inspect_ai.log import (
    EvalLog,
    EvalSample,
    read_eval_log_sample,
    read_eval_log_sample_summaries,
    read_eval_log_samples,
)
from inspect_ai.model import get_model

from benchmarks.tiny_family.inspect_task import tiny_family
from benchmarks.tiny_family.measures import Row
from sgl_proxythinker.laws import read_law
from sgl_proxythinker.tiny_family.settings import SETTINGS


@dataclass(frozen=True)
class Piece:
    """Problems `start` to `stop` of a split, `epochs` answers to each, under a setting."""

    setting: str
    split: str
    start: int
    stop: int
    epochs: int

    @property
    def samples(self) -> int:
        return (self.stop - self.start) * self.epochs


@dataclass(frozen=True)
class Place:
    """Where pieces are evaluated."""

    urls: list[str]  # of copies of one server
    logs: Path
    connections: int
    deadline: float  # in seconds since the epoch


_answered: Synchronized | None = None  # samples, over all processes


def prepare(answered: Synchronized) -> None:
    """Runs first in a process: share the count of samples, and stop as if by Ctrl-C when the alarm of a piece rings."""
    global _answered
    _answered = answered
    sys.stdout = Path(os.devnull).open("w")  # where inspect-ai lists its hooks, once a process
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))


@hooks(name="count_samples", description="Counts answered samples over all processes.")
class _Count(Hooks):
    async def on_sample_end(self, data: SampleEnd) -> None:
        with _answered.get_lock():
            _answered.value += 1


def evaluate(piece: Piece, number: int, place: Place) -> list[Row] | None:
    """The answers of piece `number` of a run; None if the deadline came first: its log keeps what was answered.

    Raises:
        RuntimeError: the evaluation failed, or the server answered the piece's first problem with another strength than
            was asked for; all of a piece ask for the same.
    """
    url = place.urls[number % len(place.urls)]
    left = place.deadline - time.time()
    if left <= 1:
        return None
    signal.setitimer(signal.ITIMER_REAL, left)
    try:
        _, logs = eval_set(
            tiny_family(**asdict(piece)),
            log_dir=str(place.logs / f"{piece.setting}-{piece.start:05}"),
            model=get_model("openai-api/sglang/default", base_url=f"{url}/v1", api_key="none"),
            max_connections=place.connections, max_samples=place.connections, retry_attempts=0, retry_immediate=False,
            display="none", log_realtime=False, log_images=False, log_model_api=True,
        )  # fmt: skip
    except KeyboardInterrupt:
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if not logs:  # interrupted
        return None
    (log,) = logs
    if log.status != "success":
        raise RuntimeError(f"{piece}: {log.status}, {log.error and log.error.message}")
    _check_strength(piece, log)
    return _rows(log)


def _check_strength(piece: Piece, log: EvalLog) -> None:
    """What made the answer, as SGLang's `meta_info` has it in the logged response, is what the setting says."""
    setting = SETTINGS[piece.setting]
    if setting.server != "guided":
        return
    sample = read_eval_log_sample(log.location, id=piece.start, epoch=1)
    event = next(event for event in sample.events if isinstance(event, ModelEvent))
    made = event.call.response["choices"][0]["meta_info"]
    law = read_law(list(setting.law)) if setting.law else None
    asked = dict(zip(("proxy_alpha", "proxy_amateur_alpha"), setting.strength, strict=True)) | {
        "proxy_law": law and law.as_params(),
        "proxy_clip": setting.clip,
        "proxy_plausible": setting.plausible,
        "proxy_expert": setting.expert,
        "proxy_experts": dict(setting.experts) or None,
    }
    if {name: made.get(name) for name in asked} != asked:
        raise RuntimeError(f"{piece}: asked for {asked}, answered with {made}")


def _touched(sample: EvalSample) -> dict[str, float]:
    """Of the answer's tokens, as the trace has them: how many there are, were steered, and their strengths' sum."""
    event = next(event for event in sample.events if isinstance(event, ModelEvent))
    strengths = event.call.response["choices"][0]["meta_info"]["proxy_trace"]["alpha"]
    steered = sum(strength != 0 for strength in strengths)
    return {"traced": len(strengths), "touched": steered, "strengths": sum(map(abs, strengths))}


def _rows(log: EvalLog) -> list[Row]:
    rows, traced = [], SETTINGS[log.eval.task_args["setting"]].traced
    for sample in read_eval_log_samples(log.location) if traced else read_eval_log_sample_summaries(log.location):
        (score,) = sample.scores.values()
        row = {"problem": sample.id, "epoch": sample.epoch, **sample.metadata, "right": int(score.value)}
        rows.append(row | score.metadata | (_touched(sample) if traced else {}))
    return sorted(rows, key=lambda row: (row["problem"], row["epoch"]))
