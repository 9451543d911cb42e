"""What a test uses of the files of tests: itself, its fixtures, and what they call. For claims about what it does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


class Module:
    """A file of tests, and what its names stand for."""

    def __init__(self, text: str) -> None:
        self.definitions: dict[str, ast.stmt] = {}
        self.imports: dict[str, tuple[str, str]] = {}  # name here: module, name there
        for node in ast.parse(text).body:
            match node:
                case ast.FunctionDef() | ast.ClassDef():
                    self.definitions[node.name] = node
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    self.definitions[name] = node
                case ast.ImportFrom(module=str(module)):
                    self.imports |= {name.asname or name.name: (module, name.name) for name in node.names}

    def tests(self, names: list[str]) -> list[ast.stmt]:
        """The test or the class of that name; all of the file's where there is none.

        Raises:
            LookupError: the file has no such test.
        """
        body = list(self.definitions.values())
        for name in names:
            body = [node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name]
            if not body:
                raise LookupError(name)
            if isinstance(body[0], ast.ClassDef) and name is not names[-1]:
                body = body[0].body
        return [node for node in body if getattr(node, "name", "").lower().startswith("test")]


@cache
def module(name: str) -> Module:
    """Empty where it is no file of tests."""
    path = ROOT / "tests" / f"{name}.py"
    return Module(path.read_text() if path.exists() else "")


def reached(test: str) -> Iterator[ast.stmt]:
    """A test, its fixtures, and what they use of the files of tests.

    Raises:
        LookupError: there is no such test.
    """
    file, *names = test.split("::")
    if not (ROOT / file).exists():
        raise LookupError(file)
    here = Path(file).stem
    found = module(here).tests(names)
    if not found:
        raise LookupError(test)
    seen, waiting = set(), [(here, node) for node in found]
    while waiting:
        place, node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        used = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        used |= {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
        for name in used:
            elsewhere, there = module(place).imports.get(name, ("conftest", name))
            for owner, own in ((place, name), (elsewhere, there)):
                if own in module(owner).definitions:
                    waiting.append((owner, module(owner).definitions[own]))
                    break


def words(node: ast.stmt) -> set[str]:
    """Whole strings but those that an error's message must hold, and names of keyword arguments."""
    inside = list(ast.walk(node))
    keywords = [each for each in inside if isinstance(each, ast.keyword) and each.arg]
    messages = {each.value for each in keywords if each.arg == "match"}
    strings = [each for each in inside if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return {each.value for each in strings if each not in messages} | {each.arg for each in keywords}


@cache
def sets(test: str) -> frozenset[str]:
    return frozenset().union(*map(words, reached(test)))
