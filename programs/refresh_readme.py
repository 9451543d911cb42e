"""Run every example of `programs/README.md` again, and write what it prints in its place.

    python -m programs.refresh_readme

An example is a `console` block whose first line is a command, `$ proxythinker NAME ...`. One server of the tiny
trained family is started for all of them. The pictures that they name are drawn as the README says.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shlex
import tempfile
from pathlib import Path

from rich.console import Console

from sgl_proxythinker.programs.command_line import SERVED_ALPHA
from sgl_proxythinker.programs.serving import serving, trained_family
from sgl_proxythinker.tiny_family import problems

README = Path(__file__).parent / "README.md"
COLUMNS = "100"
PICTURES = ["--count", "10", "--out", "pictures"]

_EXAMPLE = re.compile(
    r"(```console\n\$ proxythinker ([\w-]+)((?:[^\n]*\\\n)*[^\n]*)\n)(.*?)(?<=\n)(```)",
    re.DOTALL,
)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="proxythinker-readme-") as scratch:
        folder = Path(scratch)
        os.environ["COLUMNS"] = COLUMNS
        server = serving(trained_family(), SERVED_ALPHA, folder / "log", Console(stderr=True))
        with contextlib.chdir(folder), server as url:
            problems.main(PICTURES)
            README.write_text(refreshed(README.read_text(), ["--url", url]))


def refreshed(text: str, extra: list[str]) -> str:
    """The README with each example's output made anew; `extra` is added to each command."""

    def again(found: re.Match) -> str:
        command, name, arguments, _, end = found.groups()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            importlib.import_module(f"sgl_proxythinker.programs.{name.replace('-', '_')}").main(
                shlex.split(arguments.replace("\\\n", " ")) + extra
            )
        return command + "".join(line.rstrip() + "\n" for line in printed.getvalue().splitlines()) + end

    return _EXAMPLE.sub(again, text)


if __name__ == "__main__":
    main()
