"""Check a launch before it is paid for: `proxythinker doctor` and the flags of the server.

Exit code 0, 1 with what to change, or 2 where the command line can't be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from sgl_proxythinker.config import ProxyConfig, build_config, build_config_of_what_is_right
from sgl_proxythinker.doctor.examination import Examination
from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.launch.command_line import add_flags_briefly, take_flags
from sgl_proxythinker.launch.hooks import Stage, install
from sgl_proxythinker.launch.server_args import gpu_bytes
from sgl_proxythinker.limits import Limits, build_limits
from sgl_proxythinker.placement import GIB
from sgl_proxythinker.plugin import provide_hooks
from sgl_proxythinker.server import NAME

_MOST_GIB = 10_000
_FILE = "--config"


def main(arguments: list[str] | None = None) -> int:
    """Print the findings. Returns the exit code."""
    provide_hooks()
    install(Stage.COMMAND_LINE)
    args = _parse(sys.argv[1:] if arguments is None else arguments)
    as_json, memory = vars(args).pop("json"), vars(args).pop("gpu_memory")
    args.plugin = NAME
    flags = take_flags(args) or {}
    examination = _examine(flags, args, memory)
    sys.stdout.write(_as_json(examination) if as_json else _as_text(examination))
    return 0 if examination.is_sound else 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    from sgl_proxythinker.upstream.launch import ConfigArgumentMerger

    parser = _parser()
    if _FILE in arguments:  # SGLang's own, of its flags and ours
        try:
            arguments = ConfigArgumentMerger(parser).merge_config_with_args(arguments)
        except Exception as error:  # of files, of YAML, and of what stands in it
            parser.error(f"{_FILE}: {type(error).__name__}: {error}")
    return parser.parse_args(arguments)


def _parser() -> argparse.ArgumentParser:
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser(
        prog="proxythinker doctor",
        add_help=False,
        usage="%(prog)s [--gpu-memory GiB] [--json] --model-path BASE --proxy-expert-path E --proxy-amateur-path A ...",
        description="Will these three models start as one server, and what fits? Needs no GPU, and reads no weights "
        "but those of the small models' vision towers, if they are in local files.",
    )
    ServerArgs.add_cli_args(parser)
    _add_ours(parser)
    return parser


def _add_ours(parser: argparse.ArgumentParser) -> None:
    ours = parser.add_argument_group("doctor")
    ours.add_argument("--gpu-memory", type=_gib, metavar="GiB", help="of one GPU; left out: of the one that is found")
    ours.add_argument("--json", action="store_true", help="for scripts")
    ours.add_argument("-h", "--help", action=_BriefHelp, help="this page")


class _BriefHelp(argparse.Action):
    """Show what is ours: with SGLang's flags, of which all are taken, it would be 900 lines."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None):
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        brief = argparse.ArgumentParser(
            prog=parser.prog,
            usage=parser.usage,
            description=parser.description,
            add_help=False,
            epilog="Beside these it takes every flag of the server: proxythinker serve --help-all shows them.",
        )
        _add_ours(brief)
        add_flags_briefly(brief)
        brief.print_help()
        parser.exit()


def _gib(text: str) -> float:
    number = float(text)
    if not 1 <= number <= _MOST_GIB:  # nan neither
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {_MOST_GIB}")
    return number


def _examine(flags: dict[str, Any], args: argparse.Namespace, memory_gib: float | None) -> Examination:
    from sglang.srt.server_args import ServerArgs

    examination, given = Examination(), vars(args)
    file = flags.pop("config")
    limits = {name: flags.pop(name) for name in Limits.model_fields}

    config = examination.check("settings", lambda: _small_models(build_config(flags, file)), ProxyConfig.in_words)
    examination.check(
        "limits", lambda: build_limits(limits, file), lambda _: "what one request may ask for is in range"
    )
    if config is None:
        config = build_config_of_what_is_right(flags, file)
    memory = gpu_bytes(given) if memory_gib is None else int(memory_gib * GIB)
    if memory is not None:
        given["device"] = "cuda"
    # Without our flags, which were taken: SGLang's own arguments, and no server is prepared.
    examination.run(config, given, lambda: ServerArgs.from_cli_args(args), memory)
    return examination


def _small_models(config: ProxyConfig | None) -> ProxyConfig:
    if config is None:
        raise LaunchError(
            "no small models are named: give --proxy-expert-path and --proxy-amateur-path, or --proxy-config."
        )
    return config


def _as_text(examination: Examination) -> str:
    lines = [
        f"{'ok   ' if finding.is_sound else 'WRONG'}  {finding.check}: {finding.found}"
        for finding in examination.findings
    ]
    if examination.memory is not None:
        lines += ["", "estimated:", str(examination.memory)]
    return "\n".join(lines) + "\n"


def _as_json(examination: Examination) -> str:
    memory, placement = examination.memory, examination.placement
    told: dict[str, Any] = {
        "is_sound": examination.is_sound,
        "checks": [finding._asdict() for finding in examination.findings],
    }
    if placement is not None:
        told["placement"] = {
            "name": placement.name,
            "reason": placement.reason,
            "ranks": {str(role): list(ranks) for role, ranks in placement.ranks.items()},
            "nodes": [list(placement.ranks_of_node(node)) for node in range(placement.nodes)],
        }
    if memory is not None:
        told["memory"] = {
            "kv_tokens": memory.tokens,
            "requests": {str(length): count for length, count in memory.batches().items()},
            "ranks": [
                {
                    "models": {str(role): each._asdict() for role, each in models.items()},
                    "beside": {str(role): each._asdict() for role, each in beside.models.items()},
                    **beside.rows._asdict(),
                    "free_bytes": beside.free_bytes,
                }
                for models, beside in zip(memory.ranks, memory.beside, strict=True)
            ],
        }
    return json.dumps(told, indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(main())
