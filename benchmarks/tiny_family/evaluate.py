"""Evaluate the family as it is served: accuracy, manner and pass@k of every setting, by inspect-ai over HTTP.

    python -m sgl_proxythinker.evaluation.environment .venv-eval
    .venv-eval/bin/python -m benchmarks.tiny_family.evaluate --family models/family --out results/tiny --quick

The client has an environment of its own, since inspect-ai's `openai` is newer than SGLang's; `--server-python` starts
the servers: one guided, and a plain one for expert and amateur each. `--minutes` ends a run early; the same command
goes on with what is missing. OUT/results.jsonl has one line for each setting, OUT/samples.jsonl one for each answer.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import time
from concurrent import futures
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.tiny_family.measures import Row, summarize
from benchmarks.tiny_family.pieces import Piece, Place, evaluate, prepare
from benchmarks.tiny_family.results import Results
from benchmarks.tiny_family.serving import Launch, conditions
from sgl_proxythinker.tiny_family.settings import ANSWER_TOKENS, LAWS, PASS_AT, QUICK, SETTINGS, Setting, choose
from sgl_proxythinker.tiny_family.wordings import TEST, VALIDATION

PIECE_SAMPLES = 1000  # about 15 s of one process
QUICK_COUNT = 200
UNFINISHED = 3  # exit code


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    deadline = time.time() + 60 * args.minutes
    settings = LAWS if args.laws else choose(QUICK if args.quick else args.settings, args.pass_at)
    results = Results(args.out, run=describe_run(args))
    missing = [setting for setting in settings if setting.name not in results.finished()]
    environment = dict(pair.split("=", 1) for pair in args.server_env)
    launch = Launch(args.family.resolve(), args.server_python, environment, args.server_flags.split(), args.out)
    if missing:
        client = {name: version(name) for name in ("inspect_ai", "openai")}
        results.conditions = conditions(launch) | client | {"date": datetime.now(UTC).date().isoformat()}
    for server, group in groupby(missing, lambda setting: setting.server):
        run_settings(launch, server, list(group), results, args, deadline)
    unfinished = [setting.name for setting in settings if setting.name not in results.finished()]
    if unfinished:
        print(f"Not finished: {', '.join(unfinished)}. The same command goes on from here.")
    return UNFINISHED if unfinished else 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tiny_family.evaluate", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--family", type=Path, required=True, help="folder with base, expert and amateur")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=(TEST, VALIDATION), default=TEST)
    parser.add_argument("--count", type=int, help=f"problems (1000; {QUICK_COUNT} with --quick)")
    parser.add_argument("--settings", nargs="+", metavar="NAME", help="these alone; all are in settings.py")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}: minutes on two cores")
    parser.add_argument("--laws", action="store_true", help="the greedy settings with laws of strength or cuts")
    parser.add_argument("--pass-at", action="store_true", help="also the settings with sampled answers")
    parser.add_argument("--epochs", type=int, default=16, help="sampled answers to a problem (%(default)s)")
    parser.add_argument("--connections", type=int, default=64, help="requests at once, over all jobs (%(default)s)")
    parser.add_argument(
        "--servers",
        type=int,
        default=1,
        help="copies of each server: one reads about 150 pictures a second (%(default)s)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes that ask (%(default)s)")
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="end after so many")
    parser.add_argument("--logs", type=Path, help="folder for inspect-ai's logs, 2 kB an answer (OUT/logs)")
    parser.add_argument("--server-python", default=".venv/bin/python", help="interpreter with SGLang (%(default)s)")
    parser.add_argument(
        "--server-env", action="append", default=[], metavar="NAME=VALUE", help="the server's; repeatable"
    )
    parser.add_argument("--server-flags", default="", metavar="'--flag value ...'", help="more flags for the server")
    args = parser.parse_args(arguments)
    if args.pass_at and (args.quick or args.settings):
        parser.error("--pass-at adds the sampled settings to all others; name them with --settings to have them alone")
    args.count = args.count or (QUICK_COUNT if args.quick else 1000)
    args.logs = (args.logs or args.out / "logs").resolve()
    return args


def run_settings(
    launch: Launch, server: str, settings: list[Setting], results: Results, args: argparse.Namespace, deadline: float
) -> None:
    """Evaluate settings of one server, and write each as soon as its last piece is done."""
    pieces = [piece for setting in settings for piece in split_up(setting, args.split, args.count, args.epochs)]
    jobs = min(args.jobs, len(pieces))
    context = multiprocessing.get_context("spawn")
    answered, total = context.Value("q", 0), sum(piece.samples for piece in pieces)
    if time.time() >= deadline:
        return
    print(f"Serving {server}, {args.servers} times: {', '.join(setting.name for setting in settings)}", flush=True)
    with (
        launch.serving(server, args.servers) as urls,
        futures.ProcessPoolExecutor(jobs, context, prepare, (answered,)) as pool,
    ):
        place = Place(urls, args.logs, max(1, args.connections // jobs), deadline)
        pending = {pool.submit(evaluate, piece, number, place): piece for number, piece in enumerate(pieces)}
        rows: dict[str, list[list[Row] | None]] = {setting.name: [] for setting in settings}
        with tqdm(total=total, unit="answer", desc=server, mininterval=2) as bar:
            try:
                while pending:
                    done, _ = futures.wait(pending, timeout=1, return_when=futures.FIRST_COMPLETED)
                    bar.update(answered.value - bar.n)
                    for future in done:
                        piece = pending.pop(future)
                        rows[piece.setting].append(future.result())
                        if len(rows[piece.setting]) == sum(other.setting == piece.setting for other in pieces):
                            write(results, SETTINGS[piece.setting], rows.pop(piece.setting))
            finally:
                pool.shutdown(cancel_futures=True)


def split_up(setting: Setting, split: str, count: int, epochs: int) -> list[Piece]:
    """Pieces of at most PIECE_SAMPLES answers, so that several processes share a setting."""
    epochs = epochs if setting.sampled else 1
    step = max(1, PIECE_SAMPLES // epochs)
    starts = range(0, count, step)
    return [Piece(setting.name, split, start, min(start + step, count), epochs) for start in starts]


def write(results: Results, setting: Setting, parts: list[list[Row] | None]) -> None:
    if None in parts:  # the deadline
        return
    rows = sorted((row for part in parts for row in part), key=lambda row: (row["problem"], row["epoch"]))
    results.write(setting, summarize(rows, PASS_AT if setting.sampled else ()), rows)


def describe_run(args: argparse.Namespace) -> dict[str, Any]:
    """What all settings of a folder have in common."""
    run = {"split": args.split, "count": args.count, "sampled_answers": args.epochs, "answer_tokens": ANSWER_TOKENS}
    return run | {"weights": weights(args.family)}


def weights(family: Path) -> dict[str, str]:
    """What the models are: the beginning of their weights' SHA-256."""
    files = {file.parent.name: file for file in sorted(family.glob("*/model.safetensors"))}
    return {role: hashlib.sha256(file.read_bytes()).hexdigest()[:12] for role, file in files.items()}


if __name__ == "__main__":
    raise SystemExit(main())
