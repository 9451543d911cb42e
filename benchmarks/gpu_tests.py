"""Run the tests that say something on a GPU, and write down which code they ran on.

    make gpu-tests PYTHON=python3                      # on a GPU host, from a bare checkout
    python -m benchmarks.gpu_tests --jobs 6 --within 540   # six at once, by pytest-xdist
    python -m benchmarks.gpu_tests --after A.ended.txt     # go on where a run of the same commit was cut off
    python -m benchmarks.gpu_tests -k oracle           # what follows goes to pytest
    python -m benchmarks.gpu_tests --tell-if-stale     # prints a line if the package has changed since

The result file (benchmarks/results/gpu-tests.json) has the commit, the card, versions, and how many passed and failed.
What failed stands in a file beside it; what passed or was skipped in another, from which a later run goes on. Beside
the lane `gpu` these are the tests that put tensors on the GPU, and those that compare a server's tokens with the
oracle's: their servers run there, with its kernels, graphs and streams. Those that want the GPU's memory for themselves
(`alone`) run after all others. Of several GPUs, each of --jobs has another one first. The exit code is pytest's, the
first that is not 0.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import gpu_of_worker, told_at_once
from benchmarks.bare_checkout import write_metadata
from benchmarks.conditions import ask_conditions

ROOT = Path(__file__).parent.parent
INTERRUPTED, NO_TESTS = 2, 5  # pytest's exit codes
TO_END_S = 45  # servers are being started and ended then
RESULT = ROOT / "benchmarks" / "results" / "gpu-tests.json"
SOURCES = ("sgl_proxythinker", "patches")
# A browser's driver, a fuzzer, a reader of PromQL, and what the evaluation reads and asks with are missing there. No
# file that imports them has a test for a GPU.
NOT_THERE = ("selenium", "schemathesis", "promql_parser", "pyarrow", "datasets", "inspect_ai")
IMPORT_THEM = (
    "dashboard", "explain_laws", "explain_page", "fuzz", "evaluation_report", "evaluation_run", "published_questions",
    "published_sets",
)  # fmt: skip
LEFT_OUT = [f"--ignore=tests/test_{name}.py" for name in IMPORT_THEM]
TOGETHER, ALONE = "(gpu or on_gpu) and not alone", "alone"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_tests", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tell-if-stale", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, default=RESULT, help="(%(default)s)")
    parser.add_argument("--within", type=float, metavar="SECONDS", help="stop then, and write down what ran")
    parser.add_argument("--after", type=Path, metavar="FILE", help="leave out what ended well there, and count it")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once, each with servers of its own")
    parser.add_argument("--commit", help="default: git's, else $COMMIT")
    args, for_pytest = parser.parse_known_args()
    if args.tell_if_stale:
        print(staleness(args.out), end="")
        return
    sys.exit(run(args.out, args.commit, args.within, args.jobs, for_pytest, args.after))


def run(
    out: Path, commit: str | None, within_s: float | None, jobs: int, for_pytest: list[str], after: Path | None = None
) -> int:
    """pytest's exit code."""
    where = ask_conditions(commit)
    before = ended_before(after, where["commit"]) if after else []
    by_selection = [for_pytest] if for_pytest else [["-m", marked, *LEFT_OUT, "tests"] for marked in (TOGETHER, ALONE)]
    at_once = ["-n", str(jobs), "--dist", "loadgroup", "-p", gpu_of_worker.__name__] if jobs > 1 else ["-p", "no:xdist"]
    begin, counts, codes, failures = time.monotonic(), told_at_once.ended(before), [], ""
    # In a job in the background of a shell it is ignored, and a process that this one starts would ignore it too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with TemporaryDirectory(prefix="gpu-tests-") as folder:
        path = [*write_metadata(Path(folder)), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = outside_of_xdist() | gpu_of_worker.offered_gpus() | {"PYTHONPATH": os.pathsep.join(path)}
        # Each has an oracle on the CPU, which would take all cores, and a server or more, which polls.
        env.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // (4 * jobs))))
        for number, selected in enumerate(by_selection):
            results = Path(folder) / str(number)
            results.mkdir()
            # Without the options of pyproject.toml: a GPU host may lack the plugins that they are for.
            options = ["-q", "-o", "addopts=", "-p", "no:timeout", *at_once, "-p", told_at_once.__name__]
            left_s = within_s and max(0.0, within_s - (time.monotonic() - begin))
            told = env | {told_at_once.FOLDER: str(results)}
            told |= {told_at_once.BEFORE: str(after.resolve())} if after else {}
            codes.append(run_within(left_s, [sys.executable, "-m", "pytest", *options, *selected], told))
            counts += told_at_once.counted(results)
            if (failed := results / told_at_once.FAILURES).exists():
                failures += failed.read_text()
            if (done := results / told_at_once.ENDED).exists():
                before += done.read_text().splitlines()
            at_once = ["-p", "no:xdist"]
    code = next((code for code in codes if code not in (0, NO_TESTS)), 0)
    result = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "conditions": where,
        "arguments": for_pytest,
        **{outcome: counts[outcome] for outcome in ("passed", "failed", "skipped")},
        "seconds": round(time.monotonic() - begin),
        "was_cut_off": not {INTERRUPTED, -signal.SIGKILL}.isdisjoint(codes),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".ended.txt").write_text("".join(f"{line}\n" for line in before))
    if failures:
        out.with_suffix(".failures.txt").write_text(failures)
    print(json.dumps(result))
    return code


def ended_before(after: Path, commit: str) -> list[str]:
    """What a run that was cut off has written down; tests of other code say nothing of this one's."""
    ran_on = json.loads(after.with_suffix("").with_suffix(".json").read_text())["conditions"]["commit"]
    if ran_on != commit:
        sys.exit(f"{after} is of a run of {ran_on}, and this is {commit}: begin anew, without --after.")
    return after.read_text().splitlines()


def outside_of_xdist() -> dict[str, str]:
    """The environment without the variables of a pytest-xdist that this runs in.

    Another one would take itself for a worker of it.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}


def run_within(within_s: float | None, command: list[str], env: dict[str, str]) -> int:
    """The exit code of pytest, which ends what it began and counts it when its time is over, or is killed."""
    with subprocess.Popen(command, cwd=ROOT, env=env, process_group=0) as tests:
        try:
            return tests.wait(within_s)
        except subprocess.TimeoutExpired:
            tests.send_signal(signal.SIGINT)
        try:
            return tests.wait(TO_END_S)
        except subprocess.TimeoutExpired:
            os.killpg(tests.pid, signal.SIGKILL)
            return tests.wait()


def staleness(file: Path) -> str:
    """A line that says since when the tests on a GPU are out of date; "" where they are not."""
    if not file.exists():
        return "note: the tests that need a GPU have no result file: make gpu-tests on a GPU host.\n"
    commit = json.loads(file.read_text())["conditions"]["commit"].removesuffix("-dirty")
    log = ["git", "log", "--oneline", f"{commit}..", "--", *SOURCES]
    done = subprocess.run(log, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        return f"note: the tests that need a GPU ran on {commit}, which git doesn't know here.\n"
    changes = done.stdout.splitlines()
    if not changes:
        return ""
    return (
        f"note: the tests that need a GPU ran on {commit}, {len(changes)} changes of the package ago: make gpu-tests.\n"
    )


if __name__ == "__main__":
    main()
