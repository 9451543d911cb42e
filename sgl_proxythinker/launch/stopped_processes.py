"""End a server one of whose processes stands still (SIGSTOP): it can't watch itself, and every request would wait."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

import psutil

logger = logging.getLogger(__name__)

_ATTRIBUTE = "proxy_stopped_processes"


def watch_for_stops(watchdog: Any, timeout_s: float) -> None:
    """Let SGLang's `SubprocessWatchdog` look for processes that stand still, too.

    Args:
        watchdog: it looks once in its `_interval`, in a thread of the main process.
        timeout_s: how long one may stand still, `--watchdog-timeout`.
    """
    setattr(watchdog, _ATTRIBUTE, _Stops(timeout_s))


def ends_for_a_stop(watchdog: Any) -> bool:
    """Whether a process has stood still for too long; it has then been killed, and the end of the server is on its way.

    Args:
        watchdog: one of `watch_for_stops`, or any other, for which the answer is no.
    """
    stops: _Stops | None = getattr(watchdog, _ATTRIBUTE, None)
    if stops is None:
        return False
    for process, name in zip(watchdog._processes, watchdog._names, strict=True):
        if stops.stood_still(process.pid, watchdog._interval):
            logger.error(
                "proxythinker: %s (pid %d) was stopped by a signal %g s ago and has not gone on, so the server ends: "
                "start it again where nobody stops its processes (debuggers and frozen containers do)",
                name, process.pid, stops.timeout_s,
            )  # fmt: skip
            process.kill()
            process.join(5)
            os.kill(os.getpid(), signal.SIGQUIT)
            return True
    return False


class _Stops:
    """For how many seconds each process has been seen to stand still, one look after another."""

    def __init__(self, timeout_s: float):
        self.timeout_s = timeout_s
        self._seconds: dict[int, float] = {}

    def stood_still(self, pid: int, since_last_look_s: float) -> bool:
        # Looks are counted, not a clock: when this process has been suspended with the others, none was made.
        try:
            is_stopped = psutil.Process(pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            is_stopped = False
        self._seconds[pid] = self._seconds.get(pid, 0.0) + since_last_look_s if is_stopped else 0.0
        return self._seconds[pid] > self.timeout_s
