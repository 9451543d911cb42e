"""A plugin of pytest: each result is written down when it comes, and what ended well before is left out.

So a run that is cut off, or killed, has said what it knows, and another goes on from there.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

FOLDER = "PROXYTHINKER_TEST_RESULTS"  # in the environment: where to
BEFORE = "PROXYTHINKER_TESTS_BEFORE"  # in the environment: a file of `ENDED`
FAILURES, COUNTS, ENDED = "failures.txt", "counts.json", "ended.txt"

_counts: Counter[str] = Counter()


def counted(folder: Path) -> Counter[str]:
    """Tests by their outcome: passed, failed (or with an error before or after it), skipped."""
    file = folder / COUNTS
    return Counter(json.loads(file.read_text()) if file.exists() else {})


def ended(lines: list[str]) -> Counter[str]:
    """How many tests of a file of `ENDED` passed, and were skipped."""
    return Counter(line.split(" ", 1)[0] for line in lines)


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    if BEFORE not in os.environ:
        return
    names = {line.split(" ", 1)[1] for line in Path(os.environ[BEFORE]).read_text().splitlines()}
    # With workers a name ends by its group's, which it gets after this.
    names |= {name.rpartition("@")[0] for name in names}
    left_out = [item for item in items if item.nodeid in names]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item.nodeid not in names]


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
    else:
        with (folder / ENDED).open("a") as file:
            file.write(f"{report.outcome} {report.nodeid}\n")
    _counts[report.outcome] += 1
    (folder / COUNTS).write_text(json.dumps(_counts))
