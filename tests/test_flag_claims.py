"""A field of SGLang's arguments that is called tested is set by the test that is named, or by a server that it asks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sgl_proxythinker.policy.server_arguments import ARGUED, LIMITS, TESTED, TESTED_VALUES, flag

ROOT = Path(__file__).parent.parent
CLAIMS = [(test, field) for test, fields in TESTED.items() for field in fields.split()]


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


def is_set(test: str, field: str) -> bool:
    return not sets(test).isdisjoint({field, flag(field)})


@pytest.mark.parametrize(("test", "field"), CLAIMS)
def test_the_named_test_sets_the_field(test, field):
    assert is_set(test, field), f"{test} starts no server with {flag(field)}"


@pytest.mark.parametrize(("test", "claim"), TESTED_VALUES.items())
def test_the_named_tests_name_the_value_that_is_chosen(test, claim):
    field, value = claim
    assert value in LIMITS[field].allowed and is_set(test, field) and value in sets(test)


@pytest.mark.parametrize(
    "test",
    [
        "tests/test_gone.py",
        "tests/test_oracle.py::test_gone",
        "tests/test_tools_and_templates.py::TestCalls::test_gone",
        "tests/servers.py",
    ],
)
def test_a_test_that_is_gone_is_found(test):
    with pytest.raises(LookupError):
        sets(test)


def test_a_claim_that_is_hollow_is_found():
    assert not is_set("tests/test_oracle.py", "page_size")
    assert not is_set("tests/test_fusion.py", "model_path")
    # A string that holds the flag is no flag, and neither is the flag of another server in the same file.
    assert not is_set("tests/test_tools_and_templates.py::TestTools", "tool_call_parser")
    assert not is_set("tests/test_server_flags.py::TestPaged", "disable_radix_cache")


@pytest.mark.parametrize("reason", ARGUED)
def test_what_is_argued_has_a_sentence(reason):
    assert reason[0].isupper() and reason.endswith(".") and len(reason.split()) > 5
