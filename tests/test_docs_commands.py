"""What the docs tell a person to type is run as it stands here or by the test that is named, or needs a GPU.

What stands in sentences is read by its own program, up to where it would begin to work.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import parsed
from documented import (
    PAGES,
    ROOT,
    Command,
    as_it_stands,
    assert_started_so,
    block,
    blocks,
    commands,
    launched,
    options,
    sessions,
    spans,
)
from reached import sets
from servers import serving
from sgl_proxythinker import tiny_family
from sgl_proxythinker.commands.group import COMMANDS
from sgl_proxythinker.config import build_config
from sgl_proxythinker.tiny_family.problems import problem, problems
from sgl_proxythinker.tiny_family.wordings import TEST

pytestmark = pytest.mark.xdist_group("family")

# Page and beginning of a block, and what is seen when it was run: in its output or among its folder's files.
RUN = {
    ("README.md", "python -m sgl_proxythinker.tiny_family.problems"): r"answer +[│|] 10 +[│|] 9 ",
    ("README.md", "curl http"): r'"proxy_alpha": ?0\.8',
    ("README.md", "curl -si"): r'proxy-guidance: \{"proxy_alpha": 0\.5, "proxy_amateur_alpha": 0\.5\}',
    ("README.md", "import openai"): "",
    ("docs/api.md", "curl http"): r'"proxy_alpha": ?0\.8.*"proxy_alpha": ?0\.8',
    ("docs/api.md", "proxythinker explain"): "out.html",
    ("docs/contributing.md", "proxythinker random-triple"): "^expert +models/tiny/expert$",
    ("docs/families.md", "proxythinker random-triple"): "^expert +models/qwen3/expert$",
    ("docs/programs.md", "import sglang"): r" 0\.8\n",
    ("docs/programs.md", "proxythinker explain"): "law.html",
    ("programs/README.md", "proxythinker majority-vote"): "ballots agree",
    ("programs/README.md", "python -m sgl_proxythinker.tiny_family.problems"): "",
}
# By which test it is run: one that takes it from the page. GPU: its flags are read here, and it is run on one before a
# release.
GPU = "a GPU"
SERVED = "test_docs_commands.py::test_the_tiny_family_is_served_as_the_docs_say"
STARTED = "test_docs_commands.py::test_the_server_of_these_tests_was_started_as_the_docs_say"
MADE = "test_docs_commands.py::test_make_does_what_the_docs_say"
REPLICAS = "test_replicas.py::test_strengths_and_pictures_arrive_and_caches_are_found_again"
EXAMINED = "test_doctor.py::test_the_docs_launches_are_examined_as_they_stand"
ELSEWHERE = {
    ("README.md", "make demo"): MADE,
    ("README.md", "python3 -m venv"): "test_wheel.py::test_it_says_which_versions_are_installed",
    ("README.md", "proxythinker serve"): SERVED,
    ("README.md", "guided() {"): GPU,
    ("README.md", "guided serve"): GPU,
    ("README.md", "guided doctor"): EXAMINED,
    ("docs/behaviours.md", "proxythinker behaviours"): "test_judge.py::test_the_pages_commands",
    ("docs/doctor.md", "proxythinker doctor"): EXAMINED,
    ("docs/evaluation.md", "proxythinker serve"): SERVED,
    ("docs/evaluation.md", "proxythinker eval"): "test_evaluation_run.py::test_it_writes_a_report",
    ("docs/experts.md", "python -m sglang.launch_server --plugin proxythinker --model-path"): (
        "test_docs_commands.py::test_experts_are_served_as_the_docs_say"
    ),
    ("docs/experts.md", "python -m sglang.launch_server --plugin proxythinker --dtype"): STARTED,
    ("docs/families.md", "python -m sglang.launch_server"): "test_families.py::test_it_is_started_as_the_page_says",
    ("docs/hosts.md", "E=TIGER"): GPU,
    ("docs/hosts.md", "guided --node-rank 0"): GPU,
    ("docs/hosts.md", "guided --node-rank 1"): GPU,
    ("docs/hosts.md", "COMMIT="): GPU,
    ("docs/metrics.md", "python -m sglang.launch_server"): "test_metrics.py::test_the_page_shows_how_to_see_them",
    ("docs/metrics.md", "curl -s http"): "test_metrics.py::test_the_page_shows_how_to_see_them",
    ("docs/programs.md", "from sgl_proxythinker import Engine"): "test_engine.py::test_the_pages_program_runs",
    ("docs/reproduce.md", "# 2 GPUs"): GPU,
    ("docs/robustness.md", "python -m benchmarks.fuzz"): "test_fuzz.py::test_the_pages_commands_fuzz",
    ("docs/robustness.md", "python -m benchmarks.soak"): GPU,
    ("docs/robustness.md", "git worktree"): GPU,
    ("docs/robustness.md", "mkdir -p old-source"): GPU,
    ("docs/serving.md", "rm -rf dist"): "test_wheel.py::test_both_pages_install_alike",
    ("docs/serving.md", "uv pip install --compile-bytecode --constraints"): MADE,
    ("docs/serving.md", "python -m sglang.launch_server"): STARTED,
    ("docs/serving.md", "proxythinker doctor"): EXAMINED,
    ("docs/serving.md", "# On each host"): GPU,
    ("docs/serving.md", "# On the router's host, by sglang-router"): REPLICAS,
    ("docs/serving.md", "# On the router's host, or by smg"): REPLICAS,
}
# Pieces of programs, which stand in the page's words.
PIECES = {("docs/api.md", "client.chat.completions.create")}


def typed() -> list[tuple[str, str]]:
    """Page and text of what a person types or copies: blocks, and the launches in the README's words."""
    drawn = [text for page, text in blocks("") if page in ("docs/doctor.md", "docs/serving.md", "docs/laws.md")]
    found = [(page, text) for page, text in blocks("bash", "python", "") if text not in drawn]
    return found + [(page, text) for page, text in spans() if page == "README.md" and text.startswith("guided ")]


def key_of(page: str, text: str) -> tuple[str, str] | None:
    return next((key for key in (*RUN, *ELSEWHERE, *PIECES) if key[0] == page and text.startswith(key[1])), None)


def test_every_command_is_run_somewhere():
    found = [key_of(page, text) for page, text in typed()]
    assert None not in found, [text[:80] for key, (_, text) in zip(found, typed(), strict=True) if key is None]
    assert set(found) == {*RUN, *ELSEWHERE, *PIECES}, "a row whose block is gone"


@pytest.mark.parametrize(("key", "test"), [each for each in ELSEWHERE.items() if each[1] != GPU], ids=str)
def test_the_named_test_takes_the_command_from_the_page(key, test):
    """Kills: a test that is named and runs something else."""
    assert sets(f"tests/{test}") >= {*key}


def test_what_needs_a_gpu_is_a_step_of_a_release():
    [step] = re.findall(r"On the GPU host too each command.*?\n2\.", (ROOT / "docs/contributing.md").read_text(), re.S)
    assert {Path(page).stem for (page, _), test in ELSEWHERE.items() if test == GPU} == set(
        re.findall(r"README|\w+(?=\.md)", step)
    )


@pytest.mark.parametrize(("page", "begin"), RUN)
def test_a_command_works_as_it_stands(family, tmp_path, page, begin):
    for name, one in zip(("picture.png", "figure.png"), problems(TEST, 2), strict=True):
        one.picture().save(tmp_path / name)
    printed = as_it_stands(block(page, begin), tmp_path, family)
    seen = "\n".join([printed, *os.listdir(tmp_path)])
    assert re.search(RUN[page, begin], seen, re.DOTALL | re.MULTILINE), seen[-2000:]


def test_the_tiny_family_is_served_as_the_docs_say(tmp_path):
    launch = launched(block("README.md", "proxythinker serve"))
    assert launch == launched(block("docs/evaluation.md", "proxythinker serve"))
    assert_guides(launch, tmp_path)


@pytest.mark.rare  # servers of several experts are among others' tests
def test_experts_are_served_as_the_docs_say(tmp_path):
    begin = "python -m sglang.launch_server --plugin proxythinker --model-path"
    models = {"BASE": tiny_family.BASE, "E": tiny_family.EXPERT, "A": tiny_family.AMATEUR}
    models |= {"math=M": f"math={tiny_family.SPECIALIST}", "charts=C": f"charts={tiny_family.EXPERT}"}
    launch = [str(models.get(word, word)) for word in launched(block("docs/experts.md", begin))]
    assert_guides([*launch, "--dtype", "float32"], tmp_path, proxy_expert="math")


def assert_guides(launch, folder, **said):
    with serving(launch, folder / "log") as server:
        body = {"text": "Hi", "sampling_params": {"max_new_tokens": 2, "custom_params": said or None}}
        told = json.loads(server.post("/generate", body).headers["proxy-guidance"])
    assert told == {"proxy_alpha": 0.5, "proxy_amateur_alpha": 0.5, **said}


def test_the_server_of_these_tests_was_started_as_the_docs_say(family):
    assert_started_so(family, block("docs/serving.md", "python -m sglang.launch_server"))
    begin = "python -m sglang.launch_server --plugin proxythinker --dtype"
    assert_started_so(family, block("docs/experts.md", begin))


def made(*words: str, is_installed: bool = True) -> str:
    """What make would do."""
    command = ["make", "-n", *(("-o", ".venv/installed") if is_installed else ("-B",)), *words]
    # `make test`, which runs this, hands on that it is the outer one: this one would say which folder it enters.
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_does_what_the_docs_say():
    """The demo of a wheel, which `test_wheel.py` runs, and the page's own words to install a checkout."""
    [target] = commands("README.md", block("README.md", "make demo"))
    assert made(*target.words[1:]).split() == [".venv/bin/python", "-m", COMMANDS["demo"].name]
    install = block("docs/serving.md", "uv pip install --compile-bytecode --constraints")
    [by_make] = [line for line in made(".venv/installed", is_installed=False).splitlines() if "uv pip" in line]
    assert options(install.split()) <= options(by_make.split())


# None of the project's: the system's, the shell's, and `inspect` of an environment that a user makes.
OTHERS = {
    ".",
    "curl",
    "dmesg",
    "docker",
    "eval",
    "git",
    "grep",
    "inspect",
    "mkdir",
    "python3",
    "rm",
    "ss",
    "sysctl",
    "tar",
}
# Its modules import what is not installed here, so that their flags are looked for in their text.
OF_ANOTHER_ENVIRONMENT = {".venv-eval/bin/python"}
FLAG = re.compile(r"--[a-z][a-z0-9-]*")


def told() -> list[Command]:
    """All commands of the docs, those in sentences too."""
    found = [each for page, text in (*typed(), *sessions()) if not is_python(text) for each in commands(page, text)]
    for page, text in spans():
        if is_command(text):
            found += commands(page, text)
    return list(dict.fromkeys(found))


def is_python(text: str) -> bool:
    return text.startswith(("import ", "from ", "client."))


def is_command(text: str) -> bool:
    """Among what stands between backticks: a program's name and words of its own."""
    first, *more = re.sub(r"^([A-Z_]+=\S+ )+", "", text).split() or [""]
    if first.endswith(".sh") or first in {"make", "proxythinker"} | OTHERS - {"."}:
        return bool(more)
    is_program = re.fullmatch(r"[\w./-]*[a-z_]", first) and not first.startswith("-")
    return bool(is_program and any(FLAG.fullmatch(word) or word == "-m" for word in more))


def module_of(command: Command) -> list[str] | None:
    """A module's name and its words, of what is a program of this project's or of SGLang's."""
    first, *more = command.words
    if first == "python" or first.endswith("/python"):
        return more[1:] if more[0] == "-m" else None
    if first == "proxythinker":
        return ["sgl_proxythinker", *more]
    if command.words[:2] == ("sglang", "serve"):
        return ["sglang.launch_server", *more[1:]]
    return [f"benchmarks.{first}", *more] if (ROOT / f"benchmarks/{first}.py").exists() else None


@pytest.fixture(scope="module")
def readings(tmp_path_factory):
    """How each program reads its words: the commands, and what is said of them all."""
    picture = tmp_path_factory.mktemp("pictures") / "0001.png"
    problem(TEST, 1).picture().save(picture)
    lines = {}
    for command in told():
        module, *words = module_of(command) or [""]
        if words and command.words[0] not in OF_ANOTHER_ENVIRONMENT:
            before = ["", *words[:-1]]
            words = [str(picture) if at == "--image" else word for at, word in zip(before, words, strict=True)]
            lines[command] = [module, *({"MAIN_PROCESS": "1"}.get(word, word) for word in words)]
    return lines, parsed.readings([*lines.values()])


def test_every_program_takes_its_words(readings):
    """Kills: a flag that is misspelt or no more, a value that is none of its flag's."""
    lines, (refusals, _) = readings
    refused = [f"{command}: {why}" for command, why in zip(lines, refusals, strict=True) if why]
    assert not refused, "\n".join(refused)
    assert len(lines) > 50


def test_every_module_that_is_run_is_there():
    for command in told():
        module, *words = module_of(command) or ["sys"]
        found = importlib.util.find_spec(module)
        assert found, f"{command}: there is no module {module}"
        if command.words[0] in OF_ANOTHER_ENVIRONMENT:
            inside = ast.walk(ast.parse(Path(found.origin).read_text()))
            strings = {each.value for each in inside if isinstance(each, ast.Constant)}
            assert set(filter(FLAG.fullmatch, words)) <= strings, command


# Of `proxythinker serve` itself, of uv and of pytest.
FLAGS_OF_OTHERS = {"--help-all", "--compile-bytecode", "--cold"}


def test_every_flag_of_a_sentence_is_one_of_a_program(readings):
    _, (_, known) = readings
    elsewhere = {word for command in told() if not module_of(command) for word in command.words}
    named = {flag for _, text in spans() for flag in text.replace("=", " ").split() if FLAG.fullmatch(flag)}
    assert len(named) > 400
    assert not sorted(named - known - elsewhere - FLAGS_OF_OTHERS)


def test_every_other_program_is_known_and_takes_its_flags(pytestconfig):
    for command in told():
        first, *words = command.words
        if module_of(command) or {first, Path(first).name} & OTHERS:
            continue
        flags = {word.split("=")[0] for word in words if word.startswith("--")}
        if first == "make":
            is_here = words[:1] != ["-C"]
            made(*(words if is_here else words[2:]))
        elif first.endswith(".sh"):
            script = ROOT / "benchmarks/gpu_sessions" / Path(first).name
            assert os.access(script, os.X_OK), command
            assert not words or re.search(rf"^\s*(\w+ *\| *)*{words[0]}\b[ |\w]*\)", script.read_text(), re.M), command
        elif first == "pytest":
            assert all(pytestconfig.getoption(flag) is not None for flag in flags), command
            markers = [each.split(":")[0] for each in pytestconfig.getini("markers")]
            assert "-m" not in words or words[words.index("-m") + 1] in markers, command
        elif first == "pip":
            for name, wanted in (word.split("==") for word in words if "==" in word):
                assert importlib.metadata.version(name) == wanted, command
        elif first in ("uv", "hf"):
            # Both read all words before they show their help.
            program = Path(sys.executable).with_name(first)
            done = subprocess.run([program, *words, "--help"], capture_output=True, text=True)
            assert done.returncode == 0, f"{command}: {done.stderr}"
        else:
            raise AssertionError(f"{command}: nobody looks at it")


# A file of this project's: by its path from the checkout, the package, the page or `docs/`, or by its name alone.
FILE = re.compile(r"(?P<folder>(?:[\w.-]+/)*)(?P<name>[\w.*-]+\.(?:py|md|svg|sh|txt|toml|jsonl?|html|css|js))")
CODE = (".py", ".sh")  # by their names alone others are those of checkpoints and of runs


@pytest.fixture(scope="module")
def files():
    """Names of all files of the checkout."""
    folders = ("benchmarks", "docs", "patches", "programs", "sgl_proxythinker", "tests")
    return {path.name for path in (*ROOT.glob("*"), *(each for name in folders for each in (ROOT / name).rglob("*")))}


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page, files):
    bases = (ROOT, ROOT / "sgl_proxythinker", (ROOT / page).parent, ROOT / "docs")
    words = {word for where, text in (*spans(), *typed()) if where == page for word in text.split()}
    for found in filter(None, map(FILE.fullmatch, words)):
        path, folder, name = found[0], found["folder"], found["name"]
        if folder and not path.startswith(("results/", "runs/")):
            assert any(any(base.glob(path)) for base in bases), path
        elif path.endswith(CODE):
            assert name in files, path


def laws() -> list[str]:
    return [line for page, text in blocks("json") if page == "docs/laws.md" for line in text.splitlines()]


@pytest.mark.parametrize("line", laws())
def test_every_law_of_the_page_is_taken(family, line):
    asked = {"max_new_tokens": 4, "custom_params": json.loads(line)}
    assert family.post("/generate", {"text": "Hi", "sampling_params": asked}).ok


@pytest.mark.parametrize(("page", "text"), [(p, t) for p, t in blocks("yaml") if "expert_path" in t])
def test_every_configuration_is_taken(page, text, tmp_path):
    (tmp_path / "proxy.yaml").write_text(text)
    assert yaml.safe_load(text)["expert_path"] == str(build_config({}, str(tmp_path / "proxy.yaml")).expert_path)
