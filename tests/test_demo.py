"""`make demo`, as a person runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from servers import clean_environment
from sgl_proxythinker.programs.demo import main
from sgl_proxythinker.tiny_family.problems import KINDS

pytestmark = pytest.mark.xdist_group("demo")

ROOT = Path(__file__).parent.parent


def test_it_shows_problems_of_every_kind_and_a_score(tmp_path):
    command = [sys.executable, "-m", "programs.demo", "--seconds", "5", "--pictures", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in KINDS:
        assert Image.open(tmp_path / f"{kind}.png").size == (168, 168)
    assert done.stdout.count("base alone (alpha 0)") == done.stdout.count("guided (alpha 0.5)") == len(KINDS)
    assert done.stdout.count("Truth:") == len(KINDS) and "<think>" in done.stdout
    (*_, (base, guided)) = re.findall(r"base (\d+)/\d+ .* guided at 0.5: (\d+)/\d+", done.stdout)
    assert int(guided) > 0 and int(guided) >= int(base), "the family is trained so that guidance shows"


@pytest.mark.parametrize("some", [["--base", "b"], ["--image", "i.png", "--question", "q"]])
def test_models_of_ones_own_need_a_picture_and_a_question(some, capsys):
    with pytest.raises(SystemExit):
        main(some)
    assert "or none of them" in capsys.readouterr().err
