"""Count reasoning behaviours in a run's answers: `proxythinker behaviours RUN_FOLDER`.

Exit code 0, 1 where a judge left answers uncounted, or 2 where the command line can't be read.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from sgl_proxythinker.evaluation.behaviours import tables
from sgl_proxythinker.evaluation.behaviours.counting import PATTERNS, Judged, count_by_judge, count_by_patterns
from sgl_proxythinker.evaluation.behaviours.judge import Judge
from sgl_proxythinker.evaluation.behaviours.labelled import labelled_answers
from sgl_proxythinker.evaluation.run_folder import RunFolder

KEY_VARIABLE = "JUDGE_API_KEY"  # not OPENAI_API_KEY, which must not go to whatever URL is named


def main(arguments: list[str] | None = None) -> int:
    """Count, keep and print. Returns the exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if why := _why_not(args):
        parser.error(why)
    if args.labelled:
        sys.stdout.write("Patterns on labelled answers\n\n" + tables.of_patterns(labelled_answers()) + "\n")
    if args.run_folder is None:
        return 0
    folder = RunFolder(args.run_folder)
    count_by_patterns(folder)
    judged = asyncio.run(_judge(folder, args)) if args.judge_url else {}
    records = folder.behaviours()
    sys.stdout.write("Occurrences in an answer, with 95 % intervals\n\n" + tables.of_settings(records))
    if agreements := tables.of_observers(records):
        sys.stdout.write("\nAgreement of observers\n\n" + agreements)
    for name, each in judged.items():
        sys.stdout.write(_in_words(name, each))
    return 1 if any(each.failures for each in judged.values()) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="proxythinker behaviours",
        description="Count backtracking, verification, sub-goal setting and backward chaining in a run's answers: by "
        "patterns, and by a judge if one is named. What a judge has counted is kept, and not asked again.",
    )
    parser.add_argument("run_folder", type=Path, nargs="?", metavar="RUN_FOLDER")
    parser.add_argument("--labelled", action="store_true", help="show how patterns fare on answers labelled by hand")
    judge = parser.add_argument_group("judge", f"its API key is taken from the variable {KEY_VARIABLE}")
    judge.add_argument("--judge-url", metavar="URL", help="of an OpenAI-compatible endpoint")
    judge.add_argument("--judge-model", metavar="MODEL", help="as the endpoint names it")
    judge.add_argument("--judge-name", metavar="NAME", help="what its counts are kept under (default: the model's)")
    judge.add_argument("--judge-temperature", type=float, default=0.0, metavar="T", help="(default: 0)")
    judge.add_argument("--judge-tokens", type=_from_1, default=4096, metavar="N", help="of a verdict (default: 4096)")
    judge.add_argument("--runs", type=_from_1, default=1, help="ask so many times, each with a seed of its own")
    judge.add_argument("--concurrency", type=_from_1, default=8, help="requests at once (default: 8)")
    return parser


def _from_1(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _why_not(args: argparse.Namespace) -> str | None:
    if args.run_folder is None and not args.labelled:
        return "name a run's folder, or --labelled"
    # Before a folder is made by looking into it.
    if args.run_folder is not None and not (args.run_folder / "answers.jsonl").exists():
        return f"{args.run_folder} has no answers.jsonl: it is not the folder of a run"
    if (args.judge_url is None) != (args.judge_model is None):
        return "--judge-url and --judge-model go together"
    if (args.judge_name or args.judge_model) == PATTERNS:
        return f"a judge can't be named {PATTERNS!r}: the patterns are"
    return None


async def _judge(folder: RunFolder, args: argparse.Namespace) -> dict[str, Judged]:
    judged = {}
    for run in range(1, args.runs + 1):
        name = args.judge_name or args.judge_model
        judge = Judge(
            args.judge_url, args.judge_model, os.environ.get(KEY_VARIABLE, "none"),
            name if run == 1 else f"{name} (run {run})", concurrency=args.concurrency, seed=run,
            temperature=args.judge_temperature, most_tokens=args.judge_tokens,
        )  # fmt: skip
        try:
            judged[judge.name] = await count_by_judge(folder, judge)
        finally:
            await judge.close()
    return judged


def _in_words(name: str, judged: Judged) -> str:
    told = f"\n{name}: {judged.counted} answers counted now\n"
    if judged.shortened:
        told += f"of {judged.shortened} of them it did not read the middle: they are too long\n"
    if judged.failures:
        told += f"{len(judged.failures)} answers were not counted. The first: {judged.failures[0]}\n"
    return told
