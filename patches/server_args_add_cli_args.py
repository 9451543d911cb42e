"""Add `--plugin` and `--proxy-*` to SGLang's command line.

Stock: builds the parser of `launch_server` and `sglang serve`.
Ours:  the same, with one more group of flags. Without `--plugin` they change nothing.
Why a hook: SGLang has no registry for flags of plugins, and no `--plugin`.
"""

from sgl_proxythinker.launch.command_line import add_flags
from sgl_proxythinker.launch.hooks import is_installed
from sgl_proxythinker.patches import server_args_from_cli_args
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.server_args:ServerArgs.add_cli_args",
    signature="(parser)",
    why="the proxies are chosen with flags of ours",
    until="SGLang lets a plugin declare flags",
    checked={"0.5.17": "141c5958ee90"},
)


def around(original, parser):
    original(parser)
    # Accepted here and not taken there, the flags would be ignored and the base served alone. Unknown, they end the
    # launch.
    if is_installed(server_args_from_cli_args):
        add_flags(parser)
