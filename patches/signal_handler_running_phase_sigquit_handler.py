"""Say which models ran on a rank that died, before the server ends.

Stock: a child has failed and asks for the end of the server; its watchdog, which would name a dead process, is stopped.
Ours:  the same, after the processes that have died are named, with the models that they ran.
Why a hook: the ranks that a death makes fail ask faster than the watchdog looks.
"""

import logging

from sgl_proxythinker.launch.dead_ranks import tell_of_dead_ranks
from sgl_proxythinker.server import is_ours, proxy_config
from sgl_proxythinker.upstream.record import Upstream

logger = logging.getLogger(__name__)

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.tokenizer_manager:SignalHandler.running_phase_sigquit_handler",
    signature="(self, signum=None, frame=None)",
    why="the log of a server that ended would not say which of its models had died",
    until="SGLang names the process that died when a peer of it fails first",
    checked={"0.5.17": "bb46bf81da35"},
)


def around(original, handler, *args, **kwargs):
    manager = handler.tokenizer_manager
    watchdog = manager._subprocess_watchdog
    if watchdog is not None and is_ours(manager.server_args) and proxy_config(manager.server_args) is not None:
        try:
            tell_of_dead_ranks(watchdog)
        except Exception:
            logger.exception("proxythinker: which process failed can't be told")
    return original(handler, *args, **kwargs)
