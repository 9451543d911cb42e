"""The programs' command lines: results as JSON and as text, errors as sentences, a server where none is named."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from servers import clean_environment
from sgl_proxythinker.programs.alpha_ladder import Ladder
from sgl_proxythinker.programs.command_line import SERVED_ALPHA
from sgl_proxythinker.programs.command_line import picture as open_picture
from sgl_proxythinker.programs.compare import Comparison
from sgl_proxythinker.programs.describe_then_reason import Conversation
from sgl_proxythinker.programs.look_closer import Closer
from sgl_proxythinker.programs.majority_vote import Majority
from sgl_proxythinker.programs.pictures import random_picture
from sgl_proxythinker.programs.server_process import reserve_port
from sgl_proxythinker.programs.think_then_answer import Answered
from sgl_proxythinker.programs.verify_and_revise import Revised

# The interpreter warns, with a traceback, of what it keeps as the program's error.
pytestmark = [pytest.mark.xdist_group("guided"), pytest.mark.filterwarnings("ignore:Error in stream_executor")]

ROOT = Path(__file__).parent.parent
RESULTS = {
    "think_then_answer": Answered,
    "verify_and_revise": Revised,
    "majority_vote": Majority,
    "look_closer": Closer,
    "describe_then_reason": Conversation,
    "alpha_ladder": Ladder,
    "compare": Comparison,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for seed in (1, 2):
        random_picture(seed).save(folder / f"{seed}.png")
    return [str(folder / "1.png"), str(folder / "2.png")]


def run(program, *arguments):
    importlib.import_module(f"sgl_proxythinker.programs.{program}").main(arguments)


def arguments_for(guided, files):
    one, two = files
    return ["--url", guided.url, "--image", one, "--image", two, "--question", "How [red] is it?", "--max-tokens", "4"]


@pytest.mark.parametrize("program", RESULTS)
def test_json_is_the_whole_result(guided, files, capsys, program):
    run(program, *arguments_for(guided, files), "--json")
    output = capsys.readouterr().out
    result = RESULTS[program].model_validate_json(output, strict=True)
    assert result.model_dump_json(indent=2) + "\n" == output


@pytest.mark.parametrize("program", RESULTS)
def test_a_person_sees_the_question_and_what_made_the_answers(guided, files, capsys, monkeypatch, program):
    monkeypatch.setenv("COLUMNS", "200")
    run(program, *arguments_for(guided, files))
    output = capsys.readouterr().out
    assert "alpha" in output
    titled = program in ("describe_then_reason", "alpha_ladder", "compare")
    assert ("How [red] is it?" in output) == titled, "what people and models write is no markup"
    assert "nothing was claimed" in output or program == "think_then_answer", "four tokens of noise claim nothing"


def test_the_ladder_is_drawn(guided, files, capsys, tmp_path):
    run("alpha_ladder", *arguments_for(guided, files), "--alphas", "0", "1", "--plot", str(tmp_path / "ladder.svg"))
    assert "<svg" in (tmp_path / "ladder.svg").read_text()


def test_the_crop_is_kept(guided, files, capsys, tmp_path):
    run("look_closer", *arguments_for(guided, files), "--crop", str(tmp_path / "crop.png"), "--json")
    closer = Closer.model_validate_json(capsys.readouterr().out)
    with Image.open(tmp_path / "crop.png") as crop:
        assert crop.size == closer.crop_size


# Pictures


def test_a_picture_is_seen_as_people_see_it(tmp_path):
    upright = random_picture(3, 40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture has to be turned
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(np.asarray(open_picture(str(tmp_path / "turned.png"))), np.asarray(upright))
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert open_picture(str(tmp_path / "clear.png")).getcolors() == [(16, (255, 255, 255))]


# Errors


def refused(capsys, program, *arguments):
    """The exit code and the last line of what a person sees on stderr."""
    with pytest.raises(SystemExit) as end:
        run(program, *arguments)
    if isinstance(end.value.code, str):  # what the interpreter prints before it ends with 1
        return 1, end.value.code
    return end.value.code, capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("program", RESULTS)
def test_wrong_arguments_are_sentences(capsys, files, program):
    for arguments, sentence in (
        (["--image", "no-such.png"], "no-such.png can't be read as a picture: "),
        (["--image", __file__], "can't be read as a picture: "),
        (["--base", "b", "--expert", "e"], "give all of --base, --expert and --amateur"),
        (["--url", "http://x", "--base", "b", "--expert", "e", "--amateur", "a"], "leave out --base"),
        (["--max-tokens", "0"], "'0' is no whole number above 0"),
    ):
        code, told = refused(capsys, program, "--question", "q", *arguments)
        assert code == 2 and sentence in told, told
    assert refused(capsys, program)[0] == 2, "a question is required"


@pytest.mark.parametrize(
    "program, arguments, sentence",
    [
        ("compare", ["--alpha", "11"], "proxy_alpha is 11.0: send a finite number"),
        ("compare", ["--expert-alpha", "much"], "'much' is no number"),
        ("alpha_ladder", ["--alphas", "0", "nan"], "proxy_alpha is nan"),
        ("alpha_ladder", ["--plot", "ladder.gif"], "none of .png, .svg, .pdf"),
        ("think_then_answer", ["--regex", "a", "--json-schema", "{}"], "not allowed with"),
        ("think_then_answer", ["--json-schema", "{"], "no JSON"),
        ("think_then_answer", ["--regex", "("], "'(' is no regular expression"),
        ("majority_vote", ["--regex", "("], "'(' is no regular expression"),
        ("look_closer", [], "give a picture with --image"),
        ("describe_then_reason", [], "give a picture with --image"),
    ],
)
def test_arguments_of_one_program(capsys, program, arguments, sentence):
    code, told = refused(capsys, program, "--question", "q", *arguments)
    assert code == 2 and sentence in told, told


@pytest.mark.parametrize("program", RESULTS)
def test_a_program_that_fails_ends_with_a_sentence(capsys, guided, files, program):
    asked = ["--question", "word " * 5000, "--image", files[0], "--max-tokens", "4", "--url"]
    code, told = refused(capsys, program, *asked, guided.url)
    assert code == 1 and re.search(rf"proxythinker {program.replace('_', '-')}: error: .*longer than", told), told
    code, told = refused(capsys, program, *asked, f"http://127.0.0.1:{reserve_port()}")
    assert code == 1 and "error: no server answers at http://127.0.0.1" in told, told


def test_a_process_that_fails_says_only_the_sentence(files):
    command = [
        sys.executable,
        "-m",
        "programs.compare",
        "--question",
        "q",
        "--url",
        f"http://127.0.0.1:{reserve_port()}",
    ]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert "error: no server answers" in done.stderr and "Traceback" not in done.stderr


# Servers


@pytest.mark.rare  # tests/test_wheel.py starts a server by a program, too
def test_without_a_url_tiny_models_are_served_until_the_end(files):
    """As a person runs it. What it started is known by a mark in its environment."""
    mark = f"mark-{uuid.uuid4()}"
    command = [sys.executable, "-m", "programs.compare", "--image", files[0], "--question", "q", "--max-tokens", "2"]
    environment = clean_environment({"PROXYTHINKER_TEST": mark})
    done = subprocess.run([*command, "--json"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Comparison.model_validate_json(done.stdout).columns[1].generation.alpha == SERVED_ALPHA
    assert "Serving" in done.stderr and "warmed up" in done.stderr
    left = [path for path in Path("/proc").glob("[0-9]*/environ") if mark.encode() in read_bytes(path)]
    assert not left, "the server outlived the program"


def read_bytes(path):
    try:
        return path.read_bytes()
    except OSError:  # ended meanwhile, or somebody else's
        return b""


def test_a_server_that_does_not_start_shows_the_end_of_its_log(tmp_path, capsys):
    """None of these folders holds a model."""
    models = [f"--{role}={tmp_path}" for role in ("base", "expert", "amateur")]
    code, told = refused(capsys, "compare", "--question", "q", *models)
    assert code == 1 and "The server did not start. The end of its log:" in told
