"""Command lines as their own programs read them, up to the point where they would begin to work.

    python tests/parsed.py < LINES       # each a JSON list: a module's name and its words

Each module runs as `python -m` runs it. Its `parse_args` is the real one; where it is done, the program ends.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from servers import clean_environment

ROOT = Path(__file__).parent.parent


class Parsed(BaseException):
    """All words were taken. No `Exception`, which a program may take for one of its own."""


def readings(command_lines: Sequence[Sequence[str]]) -> tuple[list[str], set[str]]:
    """What the program of each says against its words, "" where it takes them; and all flags that they know together.

    Args:
        command_lines: each a module's name and its words.
    """
    done = subprocess.run(
        [sys.executable, __file__], input="".join(json.dumps(each) + "\n" for each in command_lines), cwd=ROOT,
        env=clean_environment({"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    refusals, flags = json.loads(done.stdout.splitlines()[-1])
    return refusals, set(flags)


def _refusal(module: str, words: list[str]) -> str:
    said = io.StringIO()
    sys.argv = [module, *words]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Parsed:
        return ""
    except SystemExit as end:
        return "" if not end.code else said.getvalue().strip()[-500:] or str(end.code)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "it looks at no words"


def _only_parse(parser: argparse.ArgumentParser, *arguments: Any, **options: Any) -> None:
    for action in parser._actions:
        action.required = False  # sentences leave out what every launch has
    _known.update(parser._option_string_actions)
    _parse_args(parser, *arguments, **options)
    raise Parsed


def _become(_: str, command: Sequence[str]) -> None:
    """`proxythinker serve` becomes SGLang's launcher: `PYTHON -m MODULE words`."""
    sys.argv = list(command[2:])
    runpy.run_module(command[2], run_name="__main__", alter_sys=True)


_known: set[str] = set()
_parse_args: Callable[..., Any] = argparse.ArgumentParser.parse_args

if __name__ == "__main__":
    argparse.ArgumentParser.parse_args = _only_parse  # type: ignore[method-assign]
    os.execv = _become  # type: ignore[assignment]
    answers = [_refusal(module, words) for module, *words in map(json.loads, sys.stdin)]
    sys.stdout.write("\n" + json.dumps([answers, sorted(_known)]) + "\n")
