"""The command `proxythinker`: its words, a help that fits a screen each, and what it hands on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from servers import clean_environment
from sgl_proxythinker import tiny_family
from sgl_proxythinker.commands import serve
from sgl_proxythinker.commands.group import COMMANDS, main

ROOT = Path(__file__).parent.parent
SCREEN = 50  # lines of 100 columns
FOR_DEVELOPERS = {"refresh_readme", "shared_gpus"}  # of this project, and of no use outside of its checkout


def called(*arguments, **environment):
    command = [sys.executable, "-m", "sgl_proxythinker", *arguments]
    return subprocess.run(command, cwd=ROOT, env=clean_environment(environment), capture_output=True, text=True)


@pytest.mark.heavy
def test_the_list_shows_every_command_on_a_line_of_its_own():
    done = called("--help", COLUMNS="100")
    assert done.returncode == 0
    shown = [line.split() for line in done.stdout.split("Commands:\n")[1].splitlines()]
    assert [words[0] for words in shown] == list(COMMANDS)
    assert [" ".join(words[1:]) for words in shown] == [module.about for module in COMMANDS.values()]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_fits_a_screen_and_names_it(sglang, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"usage: proxythinker {command} ")
    assert len(result.output.splitlines()) <= SCREEN


def test_every_program_that_is_run_is_a_command():
    run = {path.stem for path in (ROOT / "programs").glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    of = {module.name.removeprefix("programs.") for module in COMMANDS.values() if module.name.startswith("programs.")}
    assert of == run - FOR_DEVELOPERS
    for command, module in COMMANDS.items():
        name = module.name.removeprefix("programs.")
        assert not module.name.startswith("programs.") or command in (name.replace("_", "-"), "reference")


def test_the_shell_completes_commands():
    done = called(_PROXYTHINKER_COMPLETE="bash_complete", COMP_WORDS="proxythinker al", COMP_CWORD="1")
    assert done.stdout.split() == ["plain,alpha-ladder"]


def test_serve_hands_every_word_on(monkeypatch):
    handed = []
    monkeypatch.setattr(os, "execv", lambda path, words: handed.append((path, words)))
    words = ["--model-path", "a b", "--proxy-law", '{"kind": "entropy"}', "--tp", "2", "--port=1"]
    serve.main(words)
    serve.main(["--help-all"])
    launch = [sys.executable, "-m", "sglang.launch_server", "--plugin", "proxythinker"]
    assert handed == [(sys.executable, [*launch, *words]), (sys.executable, [*launch, "--help"])]


@pytest.mark.heavy
def test_serve_starts_the_launcher_that_refuses_a_server_without_an_amateur():
    done = called("serve", "--model-path", str(tiny_family.BASE), "--proxy-expert-path", str(tiny_family.EXPERT))
    assert done.returncode != 0 and "--proxy-amateur-path" in done.stdout + done.stderr


@pytest.mark.parametrize("words", [["no-such"], ["version", "x"], ["tiny-family", "--no-such"]])
def test_what_is_no_command_is_refused(words):
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2 and "usage" in result.output.lower()


def test_no_command_is_imported_before_it_is_run():
    """SGLang takes ten seconds; the list, completion and `version` take none."""
    program = "import sys, sgl_proxythinker.commands.group as group; sys.stdout.write(chr(10).join(sys.modules))"
    imported = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert "sgl_proxythinker.commands.group" in imported
    assert not {"sglang", "torch", *(f"sgl_proxythinker.{module.name}" for module in COMMANDS.values())} & {*imported}
