"""What the docs tell a person to type is run as it stands, or by the test that is named, or its flags exist."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from servers import clean_environment
from sgl_proxythinker.config import build_config
from sgl_proxythinker.launch.command_line import add_flags
from sgl_proxythinker.tiny_family.problems import problems
from sgl_proxythinker.tiny_family.wordings import TEST

pytestmark = pytest.mark.xdist_group("family")

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "programs/README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))))
SERVED_AT = "http://127.0.0.1:30000"  # in the docs, of a server that was started as they say
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
IN_WORDS = re.compile(r"`(guided [^`]+)`")  # of a block that defines it, in tables and sentences of the README

# Page and beginning of a block, and what is seen when it was run: in its output or among its folder's files.
RUN = {
    ("README.md", "python -m sgl_proxythinker.tiny_family.problems"): r"answer +[│|] 10 +[│|] 9 ",
    ("README.md", "curl http"): r'"proxy_alpha": ?0\.8',
    ("README.md", "curl -si"): r'proxy-guidance: \{"proxy_alpha": 0\.5, "proxy_amateur_alpha": 0\.5\}',
    ("README.md", "import openai"): "",
    ("docs/api.md", "curl http"): r'"proxy_alpha": ?0\.8.*"proxy_alpha": ?0\.8',
    ("docs/api.md", "proxythinker explain"): "out.html",
    ("docs/contributing.md", "proxythinker random-triple"): "^expert +models/tiny/expert$",
    ("docs/programs.md", "import sglang"): r" 0\.8\n",
    ("docs/programs.md", "proxythinker explain"): "law.html",
    ("programs/README.md", "proxythinker majority-vote"): "ballots agree",
    ("programs/README.md", "python -m sgl_proxythinker.tiny_family.problems"): "",
}
# What is run by a test of its own; "a GPU": flags are compared, and it is run on one before a release.
ELSEWHERE = {
    ("README.md", "make demo"): "test_wheel.py",
    ("README.md", "python3 -m venv"): "test_wheel.py",
    ("README.md", "proxythinker serve"): "test_tiny_served.py",
    ("README.md", "guided() {"): "a GPU",
    ("README.md", "guided serve"): "a GPU",
    ("README.md", "guided doctor"): "test_doctor.py",
    ("docs/behaviours.md", "proxythinker behaviours"): "test_judge.py",
    ("docs/doctor.md", "proxythinker doctor"): "test_doctor.py",
    ("docs/evaluation.md", "proxythinker serve"): "test_tiny_served.py",
    ("docs/evaluation.md", "proxythinker eval"): "test_evaluation_run.py",
    ("docs/experts.md", "python -m sglang.launch_server --plugin proxythinker --model-path"): "test_served_experts.py",
    ("docs/experts.md", "python -m sglang.launch_server --plugin proxythinker --dtype"): "test_tiny_served.py",
    ("docs/families.md", "proxythinker random-triple"): "test_families.py",
    ("docs/hosts.md", "E=TIGER"): "a GPU",
    ("docs/hosts.md", "guided --node-rank 0"): "a GPU",
    ("docs/hosts.md", "guided --node-rank 1"): "a GPU",
    ("docs/hosts.md", "COMMIT="): "a GPU",
    ("docs/metrics.md", "python -m sglang.launch_server"): "test_metrics.py",
    ("docs/metrics.md", "curl -s http"): "test_metrics.py",
    ("docs/programs.md", "from sgl_proxythinker import Engine"): "test_engine.py",
    ("docs/reproduce.md", "# 2 GPUs"): "a GPU",
    ("docs/robustness.md", "python -m benchmarks.fuzz"): "test_fuzz.py",
    ("docs/robustness.md", "python -m benchmarks.soak"): "a GPU",
    ("docs/robustness.md", "git worktree"): "a GPU",
    ("docs/robustness.md", "mkdir -p old-source"): "a GPU",
    ("docs/serving.md", "rm -rf dist"): "test_wheel.py",
    ("docs/serving.md", "uv pip install --compile-bytecode -c"): "../Makefile",
    ("docs/serving.md", "python -m sglang.launch_server"): "test_tiny_served.py",
    ("docs/serving.md", "proxythinker doctor"): "test_doctor.py",
    ("docs/serving.md", "# On each host"): "test_replicas.py",
    ("docs/serving.md", "# On the router's host, by sglang-router"): "test_replicas.py",
    ("docs/serving.md", "# On the router's host, or by smg"): "test_replicas.py",
}
# Pieces of programs, which stand in the page's words.
PIECES = {("docs/api.md", "client.chat.completions.create")}


def blocks(*languages: str) -> list[tuple[str, str]]:
    """Page and text of each fenced block in one of these languages, "" for none; lines of `guided` count as bash."""
    found = [
        (page, text) for page in PAGES for language, text in FENCED.findall((ROOT / page).read_text())
        if language in languages
    ]  # fmt: skip
    return found + ([("README.md", line) for line in IN_WORDS.findall((ROOT / "README.md").read_text())]
                    if "bash" in languages else [])  # fmt: skip


def commands() -> list[tuple[str, str]]:
    drawn = [text for page, text in blocks("") if page in ("docs/doctor.md", "docs/serving.md", "docs/laws.md")]
    return [(page, text) for page, text in blocks("bash", "python", "") if text not in drawn]


def key_of(page: str, text: str) -> tuple[str, str] | None:
    return next((key for key in (*RUN, *ELSEWHERE, *PIECES) if key[0] == page and text.startswith(key[1])), None)


def test_every_command_is_run_somewhere():
    found = [key_of(page, text) for page, text in commands()]
    assert None not in found, [text[:80] for key, (_, text) in zip(found, commands(), strict=True) if key is None]
    assert set(found) == {*RUN, *ELSEWHERE, *PIECES}, "a row whose block is gone"
    for test in {*ELSEWHERE.values()} - {"a GPU"}:
        assert (ROOT / "tests" / test).exists()


@pytest.mark.parametrize(("page", "begin"), RUN)
def test_a_command_works_as_it_stands(family, tmp_path, page, begin):
    [text] = [text for where, text in commands() if where == page and text.startswith(begin)]
    for name, problem in zip(("picture.png", "figure.png"), problems(TEST, 2), strict=True):
        problem.picture().save(tmp_path / name)
    text = text.replace(SERVED_AT, family.url)
    is_python = begin.startswith("import")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", text] if is_python else ["bash", "-euo", "pipefail", "-c", text],
        cwd=tmp_path, env=clean_environment({"PATH": path, "PYTHONPATH": str(ROOT)}), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    seen = "\n".join([done.stdout, *os.listdir(tmp_path)])
    assert re.search(RUN[page, begin], seen, re.DOTALL | re.MULTILINE), seen[-2000:]


def test_flags_of_every_launch_exist(sglang):
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    known = {*parser._option_string_actions, "--gpu-memory"}
    ours = argparse.ArgumentParser()
    add_flags(ours)
    known |= {*ours._option_string_actions}
    told = set()
    for _, text in blocks("bash", ""):
        for line in text.replace("\\\n", " ").splitlines():
            if re.search(r"sglang\.launch_server|^guided|proxythinker (serve|doctor)", line):
                words = shlex.split(re.sub(r"\$\(.*?\)", "", line), comments=True)
                told |= {word.partition("=")[0] for word in words if word.startswith("--")}
    assert {"--proxy-expert", "--tp-size", "--nnodes"} <= told
    assert told <= known


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
