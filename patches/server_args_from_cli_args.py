"""Take our flags off the command line, check everything that can be checked, and go on with SGLang's own.

Stock: builds `ServerArgs` from the parsed command line.
Ours:  the same; when `--plugin proxythinker` was given, the configuration is validated and travels on the object.
Why a hook: fields of ours would be dropped here, and this is the last point before SGLang's heavy imports.
"""

import sys
from functools import partial

from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.launch.command_line import take_flags
from sgl_proxythinker.launch.server_args import build_server_args
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.server_args:ServerArgs.from_cli_args",
    signature="(cls, args)",
    why="without it the flags would be accepted and ignored",
    until="SGLang lets a plugin declare flags",
    checked={"0.5.17": "b5e520effb97"},
)


def around(original, cls, args):
    flags = take_flags(args)
    if flags is None:
        return original(cls, args)
    sys.excepthook = partial(say_the_sentence_alone, sys.excepthook)
    try:
        return build_server_args(flags, vars(args), lambda: original(cls, args))
    except LaunchError as error:
        raise SystemExit(f"proxythinker: {error}") from error


def say_the_sentence_alone(otherwise, kind, error, traceback):
    """A person at a terminal needs what a start is refused for, here or once nodes have met, and no traceback above."""
    if issubclass(kind, LaunchError):
        sys.stderr.write(f"proxythinker: {error}\n")
    else:
        otherwise(kind, error, traceback)
