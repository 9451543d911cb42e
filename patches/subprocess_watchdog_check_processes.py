"""End a server one of whose processes has been stopped (SIGSTOP) for as long as its watchdog waits.

Stock: looks every second whether a scheduler or the detokenizer has ended with an error, and ends the server then.
Ours:  the same, and whether one stands still: a stopped process runs no watchdog of its own.
Why a hook: the look is made in a thread of the main process that knows them all.
"""

from sgl_proxythinker.launch.stopped_processes import ends_for_a_stop
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.utils.watchdog:SubprocessWatchdog._check_processes",
    signature="(self)",
    why="every request would wait for ever for a process that has been stopped",
    until="SGLang's watchdog sees processes that stand still",
    checked={"0.5.17": "ff55a65f540d"},
)


def around(original, watchdog):
    return original(watchdog) or ends_for_a_stop(watchdog)
