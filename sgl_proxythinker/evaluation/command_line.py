"""Evaluate a guided server on the paper's benchmarks, under all strengths, and write its tables.

    proxythinker eval --url http://host:30000 --benchmarks mathvista,mathvision --alphas 0,0.5 --out runs/mine

It goes on where it stopped: the same command asks only what has no answer yet.
"""

from __future__ import annotations

import argparse
import math
import sys
from importlib.util import find_spec
from pathlib import Path

from sgl_proxythinker.evaluation.benchmarks import BENCHMARKS
from sgl_proxythinker.evaluation.benchmarks.rows import Source
from sgl_proxythinker.evaluation.environment import go_on_in_its_environment
from sgl_proxythinker.evaluation.errors import EvaluationError
from sgl_proxythinker.evaluation.plan import Plan
from sgl_proxythinker.evaluation.presets import DEFAULT, SHIPPED, read_presets
from sgl_proxythinker.evaluation.run_folder import RunFolder
from sgl_proxythinker.evaluation.sampling import Sampling
from sgl_proxythinker.evaluation.server import Server
from sgl_proxythinker.evaluation.settings import Setting, all_different, by_strength, read_settings

WRONG, UNFINISHED = 1, 3  # exit codes
PAPERS = "mathvista,mathverse,mathvision,mmmu_pro,r1_onevision"
ALPHAS = "0,0.25,0.5,0.75,1"
SAMPLED_AT = 1.0  # temperature, where there are several answers to a question


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code is 3 where something is left to ask."""
    args = parse_arguments(arguments)
    try:
        plan, beside = None if args.report else plan_of(args), _runs(args.beside)
        if find_spec("inspect_ai") is None:
            go_on_in_its_environment(arguments if arguments is not None else sys.argv[1:])
        server = Server(args.url, args.api_key) if plan else None
        if server is not None:
            server.model()  # before what takes seconds to import
        from sgl_proxythinker.evaluation.run import report, run

        if plan is None or server is None:
            report(RunFolder(args.out), args.baseline, beside)
            return 0
        left = run(plan, server, args.baseline, beside)
    except EvaluationError as problem:
        sys.stderr.write(f"{problem}\n")
        return WRONG
    if left:
        sys.stderr.write(f"{left:,} answers are missing. The same command asks for them, and for nothing else.\n")
    return UNFINISHED if left else 0


def plan_of(args: argparse.Namespace) -> Plan:
    """What the flags ask for.

    Raises:
        EvaluationError: a file can't be read, a setting that no server takes, names that nobody has.
    """
    presets = read_presets(args.presets)
    if args.preset not in presets:
        raise EvaluationError(f"no preset {args.preset} in {args.presets}; it has {', '.join(presets)}")
    return Plan(
        args.url, args.api_key, sources(args), all_different(settings(args)), args.preset, presets[args.preset],
        sampling(args), args.out, args.limit, args.open_only, args.connections,
    )  # fmt: skip


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="proxythinker eval", description=(__doc__ or "").splitlines()[0],
        epilog=f"benchmarks: {', '.join(BENCHMARKS)}",
    )  # fmt: skip
    parser.add_argument("--url", help="of the server, without /v1")
    parser.add_argument("--api-key", default="none", help="if the server wants one")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run; an older one goes on")
    parser.add_argument("--report", action="store_true", help="ask nothing; write the report of what is there")
    parser.add_argument(
        "--beside", action="append", type=Path, default=[], metavar="FOLDER",
        help="of a run of another server, whose settings are rows of the report too; repeatable",
    )  # fmt: skip
    asked = parser.add_argument_group("what is asked")
    asked.add_argument(
        "--benchmarks", type=_names, default=_names(PAPERS), metavar="NAME,NAME", help="(the paper's five)"
    )
    asked.add_argument(
        "--data", action="append", default=[], metavar="NAME=FOLDER", help="a downloaded data set; repeatable"
    )
    asked.add_argument(
        "--revision", action="append", default=[], metavar="NAME=REVISION", help="of a data set on the Hub; repeatable"
    )
    asked.add_argument("--limit", type=_count, help="only the first so many questions of each benchmark (all)")
    asked.add_argument(
        "--open-only", action="store_true", help="leave out questions with choices, of which pass@k counts the guesses"
    )
    asked.add_argument(
        "--preset", default=DEFAULT, help="how the expert wants to be asked (%(default)s): " + ", ".join(read_presets())
    )
    asked.add_argument("--presets", type=Path, default=SHIPPED, metavar="FILE", help="a copy of presets.yaml")
    under = parser.add_argument_group("under which settings")
    under.add_argument(
        "--alphas",
        type=_numbers,
        help=f"strengths ({ALPHAS}; none beside --settings or --plain); as --alphas=-0.5,0 where the first is below 0",
    )
    under.add_argument("--without-amateur", action="store_true", help="also each strength with the expert alone")
    under.add_argument("--settings", type=Path, metavar="FILE", help="YAML: names and custom_params; laws, experts")
    under.add_argument("--plain", metavar="NAME", help="the server as it is, with or without guidance, as row NAME")
    under.add_argument("--baseline", help="the setting that others are compared with (alpha-0, else the first)")
    drawn = parser.add_argument_group("how answers are drawn")
    drawn.add_argument(
        "--repeats", type=_count, default=1, help="answers to each question: pass@k up to it (%(default)s)"
    )
    drawn.add_argument("--temperature", type=_temperature, help=f"(0; {SAMPLED_AT:g} with several repeats)")
    drawn.add_argument("--top-p", type=_share, default=0.95, help="of sampled answers (%(default)s)")
    drawn.add_argument("--seed", type=int, default=0, help="of the first repeat (%(default)s)")
    drawn.add_argument("--connections", type=_count, default=64, help="requests at once (%(default)s)")
    args = parser.parse_args(arguments)
    if unknown := [name for name in args.benchmarks if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if not args.url and not args.report:
        parser.error("--url is needed, but for --report")
    if args.repeats > 1 and args.temperature == 0:
        parser.error("several greedy answers to a question are one: leave out --repeats or --temperature 0")
    return args


def settings(args: argparse.Namespace) -> list[Setting]:
    """What the flags name, strengths first."""
    alphas = args.alphas
    if alphas is None:
        alphas = [] if args.settings or args.plain else _numbers(ALPHAS)
    named = by_strength(alphas, args.without_amateur)
    named += read_settings(args.settings) if args.settings else []
    return named + ([Setting(name=args.plain)] if args.plain else [])


def sources(args: argparse.Namespace) -> dict[str, Source]:
    """Where the data of each benchmark lies.

    Raises:
        EvaluationError: a place is named for a benchmark that isn't asked.
    """
    folders, revisions = (_pairs(given, args.benchmarks) for given in (args.data, args.revision))
    for name, folder in folders.items():
        if not Path(folder).is_dir():
            raise EvaluationError(f"--data {name}={folder}: there is no such folder")
    return {
        name: Source(folders.get(name) or BENCHMARKS[name].hub or "", revisions.get(name)) for name in args.benchmarks
    }


def sampling(args: argparse.Namespace) -> Sampling:
    temperature = args.temperature
    if temperature is None:
        temperature = SAMPLED_AT if args.repeats > 1 else 0.0
    return Sampling(repeats=args.repeats, temperature=temperature, top_p=args.top_p, seed=args.seed)


def _runs(paths: list[Path]) -> list[RunFolder]:
    """Folders of runs.

    Raises:
        EvaluationError: one of them is none; told before anything is asked.
    """
    folders = [RunFolder(path) for path in paths]
    for folder in folders:
        if folder.manifest() is None:
            raise EvaluationError(f"--beside {folder.path}: it is not the folder of a run, with a manifest.json.")
    return folders


def _pairs(given: list[str], benchmarks: list[str]) -> dict[str, str]:
    pairs = {}
    for pair in given:
        name, mark, value = pair.partition("=")
        if not mark or name not in benchmarks:
            raise EvaluationError(f"{pair} is not NAME=VALUE with the name of a benchmark of --benchmarks")
        pairs[name] = value
    return pairs


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _numbers(text: str) -> list[float]:
    return list(dict.fromkeys(float(part) for part in text.split(",")))


def _temperature(text: str) -> float:
    if not 0 <= (temperature := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return temperature


def _share(text: str) -> float:
    if not 0 < (share := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return share


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{count} is not 1 or more")
    return count
