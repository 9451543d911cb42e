"""Name the rank that failed and the requests that it was running, in the log of the server that ends with it.

Stock: the scheduler's loop; an exception leaves it, is logged, and ends the server.
Ours:  the same, after lines with the rank and its models, and the ids of the requests in the step and of those that
       wait. Where peers of the rank fail after it, in their next collective, its line is the first.
Why a hook: the loop is the one place that every failure passes and that knows the step; it costs a step nothing.
"""

import logging

from sgl_proxythinker.launch.dead_ranks import tell_of_failed_rank
from sgl_proxythinker.server import is_ours, proxy_placement
from sgl_proxythinker.upstream.record import Upstream

logger = logging.getLogger(__name__)

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.scheduler:Scheduler.run_event_loop",
    signature="(self)",
    why="nobody could tell which request ended the server, and on which rank",
    until="SGLang names the rank and the requests of a step that failed",
    checked={"0.5.17": "25764e10aa29"},
)


def around(original, scheduler):
    try:
        return original(scheduler)
    except Exception:
        placement = proxy_placement(scheduler.server_args) if is_ours(scheduler.server_args) else None
        tell_of_failed_rank(scheduler.ps.tp_rank, placement, scheduler.server_args)
        batch = scheduler.cur_batch_for_debug
        for where, reqs in (
            ("of the last step", batch.reqs if batch else []),
            ("that were decoding", scheduler.running_batch.reqs),
            ("that waited", scheduler.waiting_queue),
        ):
            if reqs:
                rids = ", ".join(req.rid for req in reqs[:64])
                logger.error("proxythinker: the requests %s: %s", where, rids)
        raise
