"""A record of one upstream definition that somebody read, and the check that it is still that one.

Reads source text only: no import of SGLang, so that a changed SGLang can't fail before it is described.
"""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

# What each package that records are about is called where releases are numbered.
_DISTRIBUTIONS = {"sglang": "sglang", "sgl_kernel": "sglang-kernel"}

_DEFINITION = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_ASSIGNMENT = ast.Assign | ast.AnnAssign


class UpstreamDrift(Exception):
    """This SGLang is not one that was read. The message says how much work it is to support it."""


@dataclass(frozen=True)
class Sources:
    """The source text of one release of a package."""

    root: Path  # the folder that holds the package's own
    release: str

    @classmethod
    @cache
    def installed(cls, package: str) -> Sources:
        """The sources that Python would import `package` from, each package's from a place of its own."""
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise UpstreamDrift(f"{package} is not installed")
        # A build for one version of CUDA ("0.4.5+cu130") is the same release.
        return cls(Path(spec.origin).parent.parent, version(_DISTRIBUTIONS[package]).partition("+")[0])


@dataclass(frozen=True)
class Upstream:
    """One definition of SGLang's that this project hooks, subclasses or calls, or an attribute that it uses."""

    symbol: str  # "sglang.srt.managers.scheduler:Scheduler.get_init_info", or Scheduler.ps
    signature: str  # names, order, defaults, annotations left out on purpose; "attribute" of an attribute
    checked: dict[str, str]  # release of the symbol's package -> digest of the definition somebody read
    why: str  # what breaks without it
    until: str  # when this record can be deleted

    @property
    def target(self) -> str:
        """The dotted path that SGLang's HookRegistry takes."""
        return self.symbol.replace(":", ".")

    @property
    def package(self) -> str:
        """The package whose sources hold the definition."""
        return self.symbol.partition(".")[0]

    def check(self, sources: Sources) -> None:
        """Raise UpstreamDrift unless this release's definition is one we have read.

        Args:
            sources: of this record's package.
        """
        signature, found = read_definition(sources.root, self.symbol)
        if self.checked.get(sources.release) == found:
            return
        if signature is None:
            what = "the definition is gone"
        elif signature != self.signature:
            what = f"signature changed\n  checked: {self.signature}\n  found:   {signature}"
        elif same := [release for release, digest in self.checked.items() if digest == found]:
            what = f"not checked, but its text is the one of {', '.join(same)}: add {sources.release!r}: {found!r}"
        else:
            what = f"same signature, new body {found}: read it"
        raise UpstreamDrift(
            f"{self.symbol}, recorded for {self.package} {', '.join(self.checked)}, in {self.package} "
            f"{sources.release}: {what}\n  needed because {self.why}"
        )


def read_definition(source_root: Path, symbol: str) -> tuple[str | None, str]:
    """The signature and the digest of a definition's source text; (None, "") when it is gone.

    Of an attribute, of a module, a class or `self`, it is the text of the first statement that sets it.
    """
    module, _, path = symbol.partition(":")
    file = source_root / (module.replace(".", "/") + ".py")
    if not file.exists():
        file = source_root / module.replace(".", "/") / "__init__.py"
    if not file.exists():
        return None, ""
    lines, node = _parse(file)
    for name in path.split("."):
        named = (each for each in ast.iter_child_nodes(node) if isinstance(each, _DEFINITION) and each.name == name)
        found = next(named, None) or _first_assignment(node, name)
        if found is None:
            return None, ""
        node = found
    return _signature(node), hashlib.sha256(_source(lines, node)).hexdigest()[:12]


def _source(lines: list[bytes], node: ast.AST) -> bytes:
    """What `ast.get_source_segment` returns, which splits the file again for each definition: seconds of a start."""
    assert isinstance(node, ast.stmt)
    own = lines[node.lineno - 1 : node.end_lineno]
    own[-1] = own[-1][: node.end_col_offset]
    own[0] = own[0][node.col_offset :]
    return b"\n".join(own)


def _first_assignment(node: ast.AST, name: str) -> _ASSIGNMENT | None:
    assignments = (each for each in ast.walk(node) if isinstance(each, _ASSIGNMENT))
    found = [each for each in assignments if name in map(_set_name, _targets(each))]
    return min(found, key=lambda statement: statement.lineno, default=None)


def _targets(node: _ASSIGNMENT) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def _set_name(target: ast.expr) -> str | None:
    if isinstance(target, ast.Name):
        return target.id
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
        return target.attr
    return None


@cache
def _parse(file: Path) -> tuple[list[bytes], ast.AST]:
    text = file.read_text()
    return text.encode().split(b"\n"), ast.parse(text)


def _signature(node: ast.AST) -> str:
    if isinstance(node, ast.ClassDef):
        return "class(" + ", ".join(ast.unparse(base) for base in node.bases) + ")"
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return "attribute"
    for argument in ast.walk(node.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return f"({ast.unparse(node.args)})"
