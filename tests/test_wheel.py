"""What a stranger does: a wheel, an environment of its own, a folder that is not the checkout, and the demo."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from documented import as_it_stands, block, commands
from servers import clean_environment
from sgl_proxythinker.tiny_family.problems import KINDS
from sgl_proxythinker.version import __version__

pytestmark = pytest.mark.xdist_group("demo")

ROOT = Path(__file__).parent.parent
INSTALL = "README.md", "python3 -m venv"
# Folders that a checkout may have and a clone has not: environments, what was built, and results.
NOT_CLONED = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist", "env", "results", "runs")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def proxythinker(elsewhere):
    """Install as the README says, and run the command in an empty folder: nothing of the checkout is seen there."""
    clone = elsewhere.with_name("clone")
    shutil.copytree(ROOT, clone, symlinks=True, ignore=NOT_CLONED)
    as_it_stands(block(*INSTALL), clone, environment={"PYTHONPATH": ""})

    def run(*arguments):
        return called(clone / "env" / "bin" / "proxythinker", *arguments, cwd=elsewhere)

    return run


def called(*command, cwd):
    done = subprocess.run([*map(str, command)], cwd=cwd, env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def right(said, side):
    """How many the last score of a side says it has right."""
    return int(re.findall(rf"{side} +(\d+)/\d+ \(", said)[-1])


def test_it_says_which_versions_are_installed(proxythinker):
    said = proxythinker("version")
    assert f"sgl-proxythinker {__version__}\n" in said and "sglang 0.5.17\n" in said


def test_the_demo_shows_problems_of_every_kind_and_a_score(proxythinker, elsewhere):
    said = proxythinker("demo", "--seconds", "5")
    for kind in KINDS:
        assert Image.open(elsewhere / "results" / "demo" / f"{kind}.png").size == (168, 168)
    assert said.count("base alone (alpha 0)") == said.count("guided (alpha 0.5)") == len(KINDS)
    assert said.count("Truth:") == len(KINDS) and "<think>" in said
    score, of_two_experts = said.split("Two experts at once")
    assert 0 < right(score, "guided at 0.5") >= right(score, "base"), "the family is trained so that guidance shows"
    base, expert, specialist, both = (
        right(of_two_experts, side) for side in ("base", "expert at 0.25", "specialist at 0.25", "both")
    )
    assert 0 < both >= max(expert, specialist) and min(expert, specialist) >= base


def test_both_pages_install_alike():
    """So that what is run of one holds for the other."""
    page, begin = "docs/serving.md", "rm -rf dist"
    short, whole = ([each.words for each in commands(*at)] for at in (
        (page, block(page, begin)), (INSTALL[0], block(*INSTALL))
    ))  # fmt: skip
    assert short and whole[-len(short) :] == short


def test_what_a_wheel_pins_is_what_is_tested():
    pinned, tested = ((ROOT / name).read_text().splitlines() for name in ("pinned.txt", "constraints.txt"))
    assert pinned and set(pinned) <= set(tested)
