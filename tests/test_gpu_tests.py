"""Nobody believes a run of the GPU's tests that is older than the package."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import gpu_tests

pytestmark = pytest.mark.heavy


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_tests, "ROOT", tmp_path)
    git(tmp_path, "init", "-q")
    (tmp_path / "sgl_proxythinker").mkdir()
    return tmp_path


def git(where, *arguments):
    who = ("-c", "user.name=a", "-c", "user.email=a@localhost")
    return subprocess.run(
        ["git", *who, *arguments], cwd=where, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(where, name):
    (where / name).write_text("x")
    git(where, "add", ".")
    git(where, "commit", "-qm", name)
    return git(where, "rev-parse", "--short=10", "HEAD")


def test_a_change_of_the_package_makes_a_run_stale(repository):
    file = repository / "result.json"
    assert "no result file" in gpu_tests.staleness(file)
    ran_on = commit(repository, "sgl_proxythinker/a.py")
    file.write_text(json.dumps({"conditions": {"commit": ran_on}}))
    assert gpu_tests.staleness(file) == ""
    commit(repository, "README.md")
    assert gpu_tests.staleness(file) == "", "not the package"
    commit(repository, "sgl_proxythinker/b.py")
    assert f"ran on {ran_on}, 1 changes of the package ago" in gpu_tests.staleness(file)
    file.write_text(json.dumps({"conditions": {"commit": "0123456789"}}))
    assert "which git doesn't know" in gpu_tests.staleness(file)


IMPORTS_NOTHING_OF = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
"""


def test_they_are_collected_where_browsers_fuzzers_and_readers_of_data_sets_are_missing(tmp_path):
    (tmp_path / "missing.py").write_text(IMPORTS_NOTHING_OF.format(absent=gpu_tests.NOT_THERE))
    options = ["-q", "--collect-only", "-o", "addopts=", "-p", "missing", "-p", "no:cacheprovider"]
    selected = ["-m", gpu_tests.TOGETHER, *gpu_tests.LEFT_OUT, "tests"]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    # A fuzzer's own plugin of pytest is missing there too.
    env = gpu_tests.outside_of_xdist() | {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", *options, *selected]
    done = subprocess.run(command, cwd=gpu_tests.ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


SAYS = "import os\n\ndef test():\n    print(os.environ['PYTEST_XDIST_WORKER'], os.environ['CUDA_VISIBLE_DEVICES'])\n"


def test_each_worker_has_another_gpu_first(tmp_path):
    for name in "abc":
        (tmp_path / f"test_{name}.py").write_text(SAYS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "3",
        "-p",
        "benchmarks.gpu_of_worker",
        "-rP",
        "--rootdir",
        tmp_path,
    ]
    env = gpu_tests.outside_of_xdist() | {"CUDA_VISIBLE_DEVICES": "4,6", "PYTHONPATH": str(gpu_tests.ROOT)}
    told = subprocess.run([*command, tmp_path], env=env, cwd=tmp_path, capture_output=True, text=True).stdout
    assert {line for line in told.splitlines() if line.startswith("gw")} == {"gw0 4,6", "gw1 6,4", "gw2 4,6"}


CUT_OFF = """
import os, signal, time
from pathlib import Path
import pytest

pytestmark = pytest.mark.xdist_group("one")

def test_that_passes():
    pass

def test_that_fails():
    assert 1 == 2, "said at once"

def test_that_ends_the_run():
    counts = Path(os.environ["PROXYTHINKER_TEST_RESULTS"]) / "counts.json"
    while not counts.exists() or "failed" not in counts.read_text():
        time.sleep(0.1)
    os.kill(os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_is_killed_has_said_what_failed(jobs, tmp_path):
    (tmp_path / "test_it.py").write_text(CUT_OFF)
    out = tmp_path / "result.json"
    code = gpu_tests.run(out, "0123456789", None, jobs, [f"--rootdir={tmp_path}", str(tmp_path)])
    result = json.loads(out.read_text())
    assert code and result["was_cut_off"] and (result["passed"], result["failed"]) == (1, 1)
    assert "said at once" in out.with_suffix(".failures.txt").read_text()
    ended = out.with_suffix(".ended.txt")
    with pytest.raises(SystemExit, match="of a run of 0123456789, and this is another"):
        gpu_tests.run(out, "another", None, jobs, [str(tmp_path)], ended)
    assert len(ended.read_text().splitlines()) == 1
    (tmp_path / "test_it.py").write_text(CUT_OFF.partition("def test_that_ends_the_run")[0].replace("1 == 2", "1 == 1"))
    code = gpu_tests.run(out, "0123456789", None, jobs, [f"--rootdir={tmp_path}", str(tmp_path)], ended)
    result, lines = json.loads(out.read_text()), ended.read_text().splitlines()
    assert not code and (result["passed"], result["failed"]) == (2, 0), "what passed before is counted"
    assert [line.partition("::")[2].partition("@")[0] for line in lines] == ["test_that_passes", "test_that_fails"]
