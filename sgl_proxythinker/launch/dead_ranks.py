"""Which models a rank ran that died or failed, for the person who reads the log of the server that ends with it."""

from __future__ import annotations

import logging
import time
from multiprocessing import connection
from typing import Any

from sgl_proxythinker.placement import Placement

logger = logging.getLogger(__name__)

SEEN_WITHIN_S = 5.0


def name_roles(watchdog: Any, placement: Placement | None) -> None:
    """Let SGLang's watchdog say what ran on a rank that died.

    Args:
        watchdog: its `SubprocessWatchdog`; its first processes are the schedulers, by rank.
        placement: None on a server that serves the base alone.
    """
    if placement is not None:
        for rank in range(placement.world_size):
            watchdog._names[rank] += f" ({placement.describe_rank(rank)})"


def tell_of_failed_rank(rank: int, placement: Placement | None) -> None:
    """Log, in the process of a rank whose scheduler an exception ends, what ran there.

    Args:
        rank: its number.
        placement: None on a server that serves the base alone.
    """
    ran = f"rank {rank}" if placement is None else placement.describe_rank(rank)
    logger.error("proxythinker: the scheduler failed (%s)", ran)


def tell_of_dead_ranks(watchdog: Any) -> None:
    """Log the processes that ended with an error, when one of their peers has asked for the end of the server.

    A rank whose peer was killed fails in their next collective and asks at once, mostly before the watchdog has looked.
    The connections of a killed process are closed a moment before it can be seen to have ended, hence a wait.
    """
    running, deadline = list(watchdog._processes), time.monotonic() + SEEN_WITHIN_S
    while running and not any(process.exitcode for process in watchdog._processes):
        if not connection.wait([process.sentinel for process in running], max(0.0, deadline - time.monotonic())):
            break
        running = [process for process in running if process.exitcode is None]
    for process, name in zip(watchdog._processes, watchdog._names, strict=True):
        if process.exitcode:
            logger.error("proxythinker: %s ended with exit code %d", name, process.exitcode)
