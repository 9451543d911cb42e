"""Name the requests that were being run when a scheduler fails, in the log of the server that ends with it.

Stock: the scheduler's loop; an exception leaves it, is logged, and ends the server.
Ours:  the same, after a line with the ids of the requests in the step and of those that wait.
Why a hook: the loop is the one place that every failure passes and that knows the step; it costs a step nothing.
"""

import logging

from sgl_proxythinker.upstream.record import Upstream

logger = logging.getLogger(__name__)

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.scheduler:Scheduler.run_event_loop",
    signature="(self)",
    why="nobody could tell which request ended the server",
    until="SGLang names the requests of a step that failed",
    checked={"0.5.17": "25764e10aa29"},
)


def around(original, scheduler):
    try:
        return original(scheduler)
    except Exception:
        batch = scheduler.cur_batch_for_debug
        for where, reqs in (
            ("of the last step", batch.reqs if batch else []),
            ("that were decoding", scheduler.running_batch.reqs),
            ("that waited", scheduler.waiting_queue),
        ):
            if reqs:
                rids = ", ".join(req.rid for req in reqs[:64])
                logger.error("proxythinker: the scheduler failed. The requests %s: %s", where, rids)
        raise
