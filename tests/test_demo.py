"""What the demo refuses. `test_wheel.py` runs it, as a person does."""

from __future__ import annotations

import pytest

from sgl_proxythinker.programs.demo import main


@pytest.mark.parametrize("some", [["--base", "b"], ["--image", "i.png", "--question", "q"]])
def test_models_of_ones_own_need_a_picture_and_a_question(some, capsys):
    with pytest.raises(SystemExit):
        main(some)
    assert "or none of them" in capsys.readouterr().err
