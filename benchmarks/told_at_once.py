"""A plugin of pytest: each failure is written down when it comes, and all results are counted, run by run.

So a run that is cut off, or killed, has said what it knows.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

FOLDER = "PROXYTHINKER_TEST_RESULTS"  # in the environment: where to
FAILURES, COUNTS = "failures.txt", "counts.json"

_counts: Counter[str] = Counter()


def counted(folder: Path) -> Counter[str]:
    """Tests by their outcome: passed, failed (or with an error before or after it), skipped."""
    file = folder / COUNTS
    return Counter(json.loads(file.read_text()) if file.exists() else {})


def pytest_runtest_logreport(report: Any) -> None:
    # pytest-xdist's workers tell the process that started them, where this is called again.
    if FOLDER not in os.environ or "PYTEST_XDIST_WORKER" in os.environ:
        return
    folder = Path(os.environ[FOLDER])
    if report.failed:
        with (folder / FAILURES).open("a") as file:
            file.write(f"== {report.nodeid} ({report.when})\n{report.longreprtext}\n\n")
    elif report.passed and report.when != "call":
        return
    _counts[report.outcome] += 1
    (folder / COUNTS).write_text(json.dumps(_counts))
