"""Start a guided server: `python -m sglang.launch_server --plugin proxythinker`, with every flag passed on."""

from __future__ import annotations

import argparse
import os
import sys

from sgl_proxythinker.launch.command_line import add_flags_briefly
from sgl_proxythinker.server import NAME

LAUNCH = (sys.executable, "-m", "sglang.launch_server", "--plugin", NAME)
_HELP = ("-h", "--help")


def main(arguments: list[str]) -> None:
    """Become SGLang's launcher, or show a help that fits a screen; with `--help-all` SGLang's own."""
    if any(word in _HELP for word in arguments):
        sys.stdout.write(_parser().format_help())
        return
    passed = ["--help" if word == "--help-all" else word for word in arguments]
    # Not in this process: those that the server spawns import its main module again.
    os.execv(sys.executable, [*LAUNCH, *passed])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="proxythinker serve",
        usage="%(prog)s --model-path BASE --proxy-expert-path E --proxy-amateur-path A [flags below or SGLang's]",
        description="SGLang's server with --plugin proxythinker: base + alpha * (expert - amateur).",
        epilog="Of SGLang's: --tp-size GPUS; over several hosts --nnodes, --node-rank, --dist-init-addr. "
        "--help-all says more of each, and shows what one request may ask for (--proxy-max-...) and all of SGLang's "
        "flags. An example without a GPU: proxythinker serve --dtype float32 $(proxythinker tiny-family)",
        add_help=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=36),
    )
    add_flags_briefly(parser)
    return parser
