"""Memory of a server's processes over time: samples, a line through them, and how sure its slope is."""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

import psutil

from benchmarks.conditions import query_gpus
from benchmarks.local_server import Watched

MIB = 1 << 20
BLOCKS = 12  # neighbouring samples are alike: the line goes through means of blocks, which count as independent


class Sampler(threading.Thread):
    """Reads what each process has in memory, every `every_s` seconds until `end`.

    A process's own is its PSS: pages that several share count in parts, so that a fork is not a leak. On a GPU the
    memory in use on all cards is one more row, in MiB as nvidia-smi has it.
    """

    def __init__(self, server: Watched, every_s: float = 5.0) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.every_s = every_s
        self.rows: dict[str, list[tuple[float, float]]] = {}  # seconds since the start, MiB
        self._ended = threading.Event()
        self._begin = time.monotonic()

    def run(self) -> None:
        while not self._ended.wait(self.every_s):
            now = time.monotonic() - self._begin
            for process, name in zip(self.server.processes, self.server.names(), strict=True):
                try:
                    used = process.memory_full_info().pss
                except psutil.Error:
                    continue
                self.rows.setdefault(f"{name} {process.pid}", []).append((now, used / MIB))
            if gpus := query_gpus("memory.used"):
                self.rows.setdefault("GPU", []).append((now, float(sum(int(gpu["memory.used"]) for gpu in gpus))))

    def end(self) -> None:
        self._ended.set()
        self.join()


def growth(samples: list[tuple[float, float]], after_s: float) -> dict[str, Any]:
    """How fast memory grew after the first `after_s` seconds.

    Args:
        samples: seconds and MiB.
        after_s: the time in which caches fill, which is left out.

    Returns:
        `first`, `last` and `most` MiB of the time that counts; `slope` in MiB a minute, its standard error, and
        `upper`, a value that the slope is below with 97.5 % confidence. None where there are too few samples.
    """
    counted = [(seconds / 60, mib) for seconds, mib in samples if seconds >= after_s]
    if len(counted) < 2 * BLOCKS:
        return {"samples": len(counted), "upper": None}
    size = len(counted) // BLOCKS
    blocks = [counted[-size * (at + 1) : len(counted) - size * at] for at in range(BLOCKS)]
    times = [statistics.fmean(minute for minute, _ in block) for block in blocks]
    means = [statistics.fmean(mib for _, mib in block) for block in blocks]
    slope, error = line(times, means)
    return {
        "samples": len(counted),
        "first": round(counted[0][1], 1),
        "last": round(counted[-1][1], 1),
        "most": round(max(mib for _, mib in counted), 1),
        "slope": round(slope, 4),
        "standard_error": round(error, 4),
        "upper": round(slope + STUDENT * error, 4),
    }


STUDENT = 2.228  # 97.5 % quantile of Student's t with BLOCKS - 2 = 10 degrees of freedom


def line(xs: list[float], ys: list[float]) -> tuple[float, float]:
    """The slope of the line of least squares, and its standard error."""
    fit = statistics.linear_regression(xs, ys)
    rest = sum((y - fit.intercept - fit.slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    spread = sum((x - statistics.fmean(xs)) ** 2 for x in xs)
    return fit.slope, (rest / (len(xs) - 2) / spread) ** 0.5
