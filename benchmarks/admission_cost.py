"""What reading and checking a request costs: time to first token, this code against an older one, in pairs.

    python -m benchmarks.admission_cost --old-python ../old/.venv/bin/python        # a checkout with its own .venv
    python -m benchmarks.admission_cost --old-path ../old-site                      # an installed older package
    python -m benchmarks.admission_cost --old-python ../old/.venv/bin/python --pairs 200 --out results/admission.jsonl

Two guided servers of the same models run side by side. Each pair is one chat of each, one after the other, the order
changing from pair to pair, with prompts and pictures that no server has seen. Both are started anew --starts times, in
turn first, since two processes of the same code differ. With --cards each has a card of its own, and with --pin half of
the cores, the other one at the next start. Measured is the time from sending to the first event of the
stream, and beside it the CPU time of the main process, which reads and checks requests: it is surer on a busy machine.
The kinds:

    text          one short user turn
    image         one PNG of 84 x 84
    photo         one JPEG of 1024 x 768, which SGLang alone decodes on a GPU where it has one
    large image   a data URL of 5 MB: a body that is parsed twice shows here
    conversation  forty turns of text, twenty fields set: what a model of the body costs

A kind's ratio is the geometric mean of new / old over its pairs, after the slowest and the fastest tenth of the pairs
are left out, with a 95 % interval from resampling the pairs. Without --old-python and --old-path both are this code:
the ratios then say how much is noise. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import requests

from benchmarks.conditions import ask_conditions
from benchmarks.lines import append_line
from benchmarks.local_server import named_models
from sgl_proxythinker.programs.pictures import data_url, random_picture
from sgl_proxythinker.programs.server_process import reserve_port, running, wait_until_ready

START_WITHIN_S = 900
TRIMMED = 0.1  # of the pairs, on each side: a pause of the machine is not the code's
RESAMPLES = 2_000
LARGE = (1118, 1118)  # noise as PNG, which does not get smaller: a data URL of 5.0 MB
WARM_UP = 5  # pairs of a kind and start


def main() -> None:
    args = parse_arguments()
    where = ask_conditions(args.commit)
    pairs = {kind: Pairs() for kind in args.kinds}
    code = {"old": (args.old_python, args.old_path), "new": (sys.executable, args.new_path)}
    with tempfile.TemporaryDirectory(prefix="admission-") as folder:
        models = named_models(args.models, Path(folder))
        for start in range(args.starts):
            with contextlib.ExitStack() as servers:
                order = sorted(code, reverse=bool(start % 2))
                cards = args.cards or (None, None)
                cores = halves() if args.pin else (None, None)
                sides = {
                    side: servers.enter_context(serving(*code[side], models, args, side, Place(cards[at], cores[at])))
                    for at, side in enumerate(order)
                }
                for kind in args.kinds:
                    measure(kind, start, sides, pairs[kind], args)
    results = [{"kind": kind, **pairs[kind].compare()} for kind in args.kinds]
    names = ("pairs", "starts", "models", "server_flags", "cards", "pin")
    setting = {name: getattr(args, name) for name in names} | {"old": args.old_commit, "large_bytes": large_bytes()}
    for result in results:
        line = {"benchmark": "admission_cost", "setting": setting, "conditions": where, **result}
        if args.out:
            append_line(args.out, line)
    print(json.dumps({"name": "admission_cost", "setting": setting, "conditions": where, "results": results}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.admission_cost", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--old-python", default=sys.executable, help="that has the old code; default: this one")
    parser.add_argument("--old-path", help="folder with the old package, before all others on the path")
    parser.add_argument("--new-path", help="folder with the new package, where it is not installed")
    parser.add_argument("--old-commit", default="b8e7eef", help="its name in the results (%(default)s)")
    parser.add_argument("--starts", type=int, default=2, help="of both servers (%(default)s)")
    parser.add_argument(
        "--cards", type=lambda text: tuple(text.split(",")), metavar="0,1", help="GPUs, one for each server"
    )
    parser.add_argument("--pin", action="store_true", help="half of the cores for each server")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--pairs", type=int, default=100, help="of each kind and start (%(default)s)")
    parser.add_argument("--models", default="random", help="family, random, or weightless:BASE:PROXY (%(default)s)")
    parser.add_argument("--server-flags", default="", metavar="'--flag value ...'", help="further ones, for both")
    parser.add_argument("--out", type=Path, help="JSON lines, appended")
    parser.add_argument("--commit", help="of the new code; default: git's, else $COMMIT")
    return parser.parse_args()


class Side(NamedTuple):
    """One of the two servers."""

    url: str
    main: psutil.Process

    def cpu_s(self) -> float:
        times = self.main.cpu_times()
        return times.user + times.system


class Place(NamedTuple):
    """What one of the two servers has to itself; None: shared."""

    card: str | None = None  # as CUDA_VISIBLE_DEVICES names it
    cores: str | None = None  # as taskset lists them


def halves() -> tuple[str, str]:
    """The cores of this machine in two lists."""
    cores = sorted(map(str, os.sched_getaffinity(0)), key=int)
    middle = len(cores) // 2
    return ",".join(cores[:middle]), ",".join(cores[middle:])


@contextlib.contextmanager
def serving(
    python: str, path: str | None, models: list[str], args: argparse.Namespace, name: str, place: Place
) -> Iterator[Side]:
    """A server of the package that `python` has, or that `path` holds."""
    port = reserve_port()
    command = [
        python, "-m", "sglang.launch_server", "--plugin", "proxythinker", *models, *args.server_flags.split(),
        "--random-seed", "1", "--host", "127.0.0.1", "--port", str(port), "--nccl-port", str(reserve_port()),
    ]  # fmt: skip
    # The folder that this runs in holds the new package: it may not be found first.
    env = os.environ | {"PYTHONSAFEPATH": "1"}
    if place.card is not None:
        env["CUDA_VISIBLE_DEVICES"] = place.card
    if place.cores is not None:
        command = ["taskset", "--cpu-list", place.cores, *command]
    if path:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (path, env.get("PYTHONPATH"))))
    log = Path(tempfile.mkdtemp(prefix="admission-")) / f"{name}.log"
    where = [python, "-c", "import sgl_proxythinker; print(*sgl_proxythinker.__path__)"]
    found = subprocess.run(where, env=env, cwd="/", stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    print(f"  starting {name}, the code in {found}: log in {log}", flush=True)
    with running(command, log, env) as process:
        wait_until_ready(process, log, START_WITHIN_S)
        yield Side(f"http://127.0.0.1:{port}", psutil.Process(process.pid))


# What is asked


def text(number: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"Question {number}: which of the two is the larger one?"}]


def image(number: int, size: tuple[int, int] = (84, 84)) -> list[dict[str, Any]]:
    url = data_url(random_picture(number, *size), compress_level=0 if size == LARGE else 6)
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": f"Picture {number}?"}]
    return [{"role": "user", "content": content}]


def photo(number: int) -> list[dict[str, Any]]:
    url = data_url(random_picture(number, 64, 48).resize((1024, 768)), "JPEG", quality=90)
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def conversation(number: int) -> list[dict[str, Any]]:
    return [turn for at in range(20) for turn in (*text(40 * number + at), {"role": "assistant", "content": "Both."})][
        :-1
    ]


MANY_FIELDS = {
    "top_p": 0.9, "top_k": 50, "min_p": 0.01, "frequency_penalty": 0.1, "presence_penalty": 0.1, "stop": ["#", "###"],
    "repetition_penalty": 1.01, "logit_bias": {str(token): -1 for token in range(100)}, "stop_token_ids": [5, 6],
    "logprobs": True, "top_logprobs": 3, "user": "a", "ignore_eos": True, "min_tokens": 0, "parallel_tool_calls": True,
    "skip_special_tokens": True, "no_stop_trim": False, "seed": 5, "custom_params": {"proxy_alpha": 0.7}, "n": 1,
}  # fmt: skip
KINDS = {
    "text": lambda number: {"messages": text(number)},
    "image": lambda number: {"messages": image(number)},
    "photo": lambda number: {"messages": photo(number)},
    "large image": lambda number: {"messages": image(number, LARGE)},
    "conversation": lambda number: {"messages": conversation(number), **MANY_FIELDS},
}


def large_bytes() -> int:
    return len(image(0, LARGE)[0]["content"][0]["image_url"]["url"])


def first_token_s(url: str, body: bytes) -> float:
    """Seconds from sending a chat to the first event, which SGLang sends with the first token.

    Raises:
        RuntimeError: it was refused, or ended without any.
    """
    headers = {"Content-Type": "application/json"}
    begin = time.perf_counter()
    with requests.post(f"{url}/v1/chat/completions", data=body, headers=headers, stream=True, timeout=120) as response:
        for line in response.iter_lines(chunk_size=1):
            if response.ok and line.startswith(b'data: {"id":'):
                return time.perf_counter() - begin
        raise RuntimeError(f"{response.status_code} without a first token: {line[:300]!r}")


class Pairs:
    """Seconds of one kind, pair by pair."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {"old": [], "new": []}
        self.cpu_s = {"old": 0.0, "new": 0.0}
        self.body_bytes = 0

    def compare(self) -> dict[str, Any]:
        """Medians, the ratio new / old of pairs, and an interval that it is in with 95 % confidence."""
        logs = [math.log(new / old) for old, new in zip(self.seconds["old"], self.seconds["new"], strict=True)]
        chance = random.Random(0)
        resampled = sorted(trimmed_mean(chance.choices(logs, k=len(logs))) for _ in range(RESAMPLES))
        return {
            "body_bytes": self.body_bytes,
            "ms": {side: round(1e3 * statistics.median(seconds), 3) for side, seconds in self.seconds.items()},
            "ratio": round(math.exp(trimmed_mean(logs)), 4),
            "interval": [round(math.exp(resampled[int(RESAMPLES * part)]), 4) for part in (0.025, 0.975)],
            "main_cpu_ms": {side: round(1e3 * cpu / len(logs), 2) for side, cpu in self.cpu_s.items()},
        }


def measure(kind: str, start: int, sides: dict[str, Side], pairs: Pairs, args: argparse.Namespace) -> None:
    """Pairs of one kind, alternating which side is asked first; the first few are not counted."""
    first = 10_000 * (len(KINDS) * start + list(KINDS).index(kind))
    before = {}
    for number in range(WARM_UP + args.pairs):
        if number == WARM_UP:
            before = {name: side.cpu_s() for name, side in sides.items()}
        options = {"model": "default", "max_tokens": 2, "temperature": 0, "ignore_eos": True, "stream": True}
        body = json.dumps(options | KINDS[kind](first + number)).encode()
        for side in sorted(sides, reverse=bool(number % 2)):
            seconds = first_token_s(sides[side].url, body)
            if number >= WARM_UP:
                pairs.seconds[side].append(seconds)
    for name, side in sides.items():
        pairs.cpu_s[name] += side.cpu_s() - before[name]
    pairs.body_bytes = len(body)
    print(f"  {kind}, start {start}: {pairs.compare()}", flush=True)


def trimmed_mean(values: list[float]) -> float:
    cut = int(TRIMMED * len(values))
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


if __name__ == "__main__":
    main()
