"""`make test` installs the browser, or says why it can't; it never goes on without one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / ".ci" / "install_browser"


@pytest.fixture
def run(tmp_path):
    """Runs the script on a machine that has the given commands only, each a line of shell."""

    def run(**commands: str) -> subprocess.CompletedProcess:
        for name, body in commands.items():
            command = tmp_path / name.replace("_", "-")
            command.write_text(f"#!/bin/sh\n{body}\n")
            command.chmod(0o755)
        (tmp_path / "env").symlink_to(shutil.which("env"))
        return subprocess.run(["/bin/sh", SCRIPT], env={"PATH": str(tmp_path)}, capture_output=True, text=True)

    return run


@pytest.mark.heavy
def test_where_there_is_one_nothing_is_installed(run):
    done = run(chromium="exit 1", chromedriver="exit 1", apt_get="exit 1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_is_installed_with_its_driver(run, tmp_path):
    done = run(apt_get=f'echo "$DEBIAN_FRONTEND $*" >> {tmp_path}/asked', id="echo 0", chromium="exit 1")
    assert done.returncode == 0, done.stderr
    update, install = (tmp_path / "asked").read_text().splitlines()
    assert "noninteractive update" in update
    assert "noninteractive install" in install and " chromium chromium-driver" in install


def test_who_is_not_root_asks_sudo(run, tmp_path):
    done = run(apt_get="exit 0", id="echo 1000", sudo=f'echo "$*" >> {tmp_path}/asked; exec "$@"')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text().count("apt-get") == 2


@pytest.mark.parametrize(
    ("commands", "sentence"),
    [
        ({}, "there is no apt-get here"),
        ({"apt_get": "exit 0", "id": "echo 1000"}, "takes root, and there is no sudo"),
        ({"apt_get": "exit 1", "id": "echo 0"}, "apt-get update failed"),
        ({"apt_get": '[ "$1" = update ]', "id": "echo 0"}, "apt-get install failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_it_can_not_be_it_says_why_and_fails(run, commands, sentence):
    done = run(**commands)
    assert done.returncode == 1
    assert "The tests of pages need chromium chromium-driver" in done.stderr and sentence in done.stderr
