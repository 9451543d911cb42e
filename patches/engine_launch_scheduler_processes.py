"""Believe only schedulers that prove to be ours; over several hosts start them once all nodes agree on what is served.

Stock: spawns the schedulers of this host, and says how to wait until they are ready.
Ours:  the same, and what is waited for is also that each of them runs the models that it is to run, on every node.
Why a hook: a node other than the first never returns from `_launch_subprocesses`, and there nobody else holds its
       processes.
"""

from functools import partial

from sgl_proxythinker.launch.schedulers import launch_schedulers
from sgl_proxythinker.server import is_ours
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.entrypoints.engine:Engine._launch_scheduler_processes",
    signature="(cls, server_args, port_args, run_scheduler_process_func)",
    why="a scheduler whose worker is not ours would be believed, and nodes that serve different models would start",
    until="SGLang lets plugins veto readiness, and compares what its nodes were asked for",
    checked={"0.5.17": "0cd1451fafda"},
)


def around(original, cls, server_args, *args, **kwargs):
    if not is_ours(server_args):
        return original(cls, server_args, *args, **kwargs)
    return launch_schedulers(partial(original, cls, server_args, *args, **kwargs), server_args)
