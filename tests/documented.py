"""The commands of the docs: of blocks, and between backticks in sentences and tables."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from servers import Server, clean_environment
from sgl_proxythinker.commands import serve

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "patches/README.md",
    "programs/README.md",
    *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))),
)
SERVED_AT = "http://127.0.0.1:30000"  # of a server that was started as the page says
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
_FUNCTION = re.compile(r"^(\w+)\(\) \{ (.*?); \}$", re.DOTALL | re.MULTILINE)
_VARIABLE = re.compile(r"[A-Z_]+=")
_COMMENT = re.compile(r"(^| )#.*", re.MULTILINE)
_PUNCTUATION = "();|&\n<>"  # between commands, those of $(...), and before what is written to
# In a shell: what would start a server says its words, one a line.
_SHOW_A_LAUNCH = """
python() { printf '%s\\n' "$@"; }
proxythinker() { if [ "$1" = serve ]; then printf '%s\\n' "$@"; else command proxythinker "$@"; fi; }
"""


class Command(NamedTuple):
    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def blocks(*languages: str) -> list[tuple[str, str]]:
    """Page and text of each fenced block in one of these languages, "" for none."""
    return [
        (page, text) for page in PAGES for language, text in _FENCED.findall((ROOT / page).read_text())
        if language in languages
    ]  # fmt: skip


def block(page: str, begin: str) -> str:
    """The one block of a page that begins so; where there is none, what stands in a sentence or a table."""
    for places in (blocks("bash", "python", ""), spans()):
        if found := [text for where, text in places if where == page and text.startswith(begin)]:
            [text] = found
            return text
    raise LookupError(f"{page} has no command that begins with {begin}")


def sessions() -> list[tuple[str, str]]:
    """Page and text of each command of a block that shows what it printed, behind a `$`."""
    return [
        (page, text) for page, shown in blocks("console")
        for text in re.findall(r"^\$ ((?:.*\\\n)*.*)", shown, re.MULTILINE)
    ]  # fmt: skip


def spans() -> list[tuple[str, str]]:
    """Page and text of what stands between backticks outside of blocks, on one line."""
    return [
        (page, " ".join(text.split()))
        for page in PAGES
        for text in _SPAN.findall(_FENCED.sub("", (ROOT / page).read_text()))
    ]


def commands(page: str, text: str) -> Iterator[Command]:
    """The commands of a shell's text in the order in which they stand, functions and variables of the page replaced.

    Words are as the command gets them, without what is set for it, its redirections and what a block leaves open
    (`...` at its end).
    """
    defined = dict(_FUNCTION.findall((ROOT / page).read_text()))
    text = _FUNCTION.sub("", text)
    for name, body in defined.items():
        for_all = re.compile(rf"(?<![-\w/]){name} (.*)")
        text = for_all.sub(lambda match, body=body: body.replace('"$@"', match[1]), text.replace("\\\n", " "))
    text = _COMMENT.sub("", text.replace("\\\n", " "))
    tokens = shlex.shlex(text, posix=True, punctuation_chars=_PUNCTUATION)
    tokens.commenters, tokens.whitespace, tokens.whitespace_split = "", " \t", True
    words: list[str] = []
    skip = False
    for token in [*tokens, ";"]:
        if set(token) <= set(_PUNCTUATION) - set("<>"):
            yield from _command(page, words)
            words = []
        elif set(token) <= set(_PUNCTUATION):
            skip = True  # where it is written to
        elif not skip:
            words.append(token)
        else:
            skip = False


def _command(page: str, words: list[str]) -> Iterator[Command]:
    while words and _VARIABLE.match(words[0]):
        words = words[1:]
    words = [word for word in words if word != "$"]
    if len(words) > 1 and words[-1] == "..." and not words[-2].startswith("--"):
        words = words[:-1]
    if words:
        yield Command(page, tuple(words))


def as_it_stands(
    text: str, folder: Path, server: Server | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Run a block of shell commands, or a program in Python, in a folder. Returns what it printed.

    Args:
        server: the one that stands at `SERVED_AT` in the docs.
    """
    if server is not None:
        text = text.replace(SERVED_AT, server.url)
    is_python = text.startswith(("import ", "from "))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", text] if is_python else ["bash", "-euo", "pipefail", "-c", text], cwd=folder,
        env=clean_environment({"PATH": path, "PYTHONPATH": str(ROOT), **(environment or {})}),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def options(words: Sequence[str]) -> set[tuple[str, ...]]:
    """Each flag with its values."""
    found: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            found.append(list(word.split("=", 1)))
        elif found:
            found[-1].append(word)
    return {tuple(option) for option in found}


def launched(text: str) -> list[str]:
    """The server's command line of a block that launches one, as a shell gives it; other commands in it run."""
    shown = f"{_SHOW_A_LAUNCH}\n{text}"
    first, *words = as_it_stands(shown, ROOT).splitlines()
    return [*serve.LAUNCH, *words] if first == "serve" else [sys.executable, first, *words]


def assert_started_so(server: Server, text: str, standing_for: Mapping[str, object] = MappingProxyType({})) -> None:
    """A server was started as a block launches one: with each of its flags, and others beside them.

    Args:
        standing_for: what a word of the page is for this server, as the path of a published model.
    """
    said = [str(standing_for.get(word, word)) for word in launched(text)]
    missing = options(said) - options(server.process.args)
    assert not missing, f"{missing} is not among {server.process.args}"
