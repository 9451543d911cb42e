"""Which models a rank ran that died or failed, for the person who reads the log of the server that ends with it."""

from __future__ import annotations

import logging
import time
from multiprocessing import connection
from typing import Any

from sgl_proxythinker.nodes.meeting import Meeting
from sgl_proxythinker.nodes.watch import Watch
from sgl_proxythinker.placement import Placement

logger = logging.getLogger(__name__)

SEEN_WITHIN_S = 5.0
# By another node: its watchdog looks once a second, the word is left within 8 s (`nodes/meeting.py` says why), and read
# once a second.
TOLD_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.2  # for what other nodes say


def name_roles(watchdog: Any, placement: Placement | None, node: int = 0) -> None:
    """Let SGLang's watchdog say what ran on a rank that died.

    Args:
        watchdog: its `SubprocessWatchdog`; its first processes are the schedulers, by rank.
        placement: None on a server that serves the base alone.
        node: whose processes they are.
    """
    if placement is not None:
        for index, rank in enumerate(placement.ranks_of_node(node)):
            watchdog._names[index] += f" ({placement.describe_rank(rank)})"


def tell_of_failed_rank(rank: int, placement: Placement | None, server_args: Any) -> None:
    """Log, in the process of a rank whose scheduler an exception ends, what ran there.

    Args:
        rank: its number.
        placement: None on a server that serves the base alone.
        server_args: SGLang's.
    """
    ran = f"rank {rank}" if placement is None else placement.describe_rank(rank)
    logger.error("proxythinker: the scheduler failed (%s)", ran)
    if placement is not None and placement.nodes > 1:
        Meeting.of(server_args).leave_first_failure(f"the scheduler failed ({ran})")


def tell_of_dead_ranks(watchdog: Any) -> None:
    """Log the processes that ended with an error, when one of their peers has asked for the end of the server.

    A rank whose peer was killed fails in their next collective and asks at once, mostly before the watchdog has looked.
    The connections of a killed process are closed a moment before it can be seen to have ended, hence a wait. Where the
    peer is another node's, that node says so; and it is told of those that died here.
    """
    nodes: Watch | None = getattr(watchdog, "proxy_nodes", None)
    if nodes is not None:
        nodes.expect_the_end()
    running, since, within_s = list(watchdog._processes), time.monotonic(), SEEN_WITHIN_S
    while (running or nodes is not None) and not any(process.exitcode for process in watchdog._processes):
        left = since + within_s - time.monotonic()
        if nodes is not None and nodes.why_others_ended:
            break
        if left <= 0:
            # A rank that failed by an exception has said so, and its process ends as if all were well.
            if nodes is None or within_s == TOLD_WITHIN_S or nodes.meeting.first_failure():
                break
            within_s = TOLD_WITHIN_S
            continue
        if running:
            limit = left if nodes is None else min(left, _LOOK_EVERY_S)
            connection.wait([process.sentinel for process in running], limit)
        else:  # all have ended by themselves, because of another node's, which may not have said so yet
            time.sleep(_LOOK_EVERY_S)
        running = [process for process in running if process.exitcode is None]
    died = [
        f"{name} ended with exit code {process.exitcode}"
        for process, name in zip(watchdog._processes, watchdog._names, strict=True)
        if process.exitcode
    ]
    for each in died:
        logger.error("proxythinker: %s", each)
    if nodes is not None and (died or not nodes.why_others_ended):
        _tell_the_nodes(nodes, died)


def _tell_the_nodes(nodes: Watch, died: list[str]) -> None:
    why = "; ".join(died) or nodes.meeting.first_failure()
    if not died:
        logger.error("proxythinker: %s, and no other node has said why", why or "a process of this node failed")
    nodes.meeting.leave_word(why or "a process of it failed; its log says which, and why")
