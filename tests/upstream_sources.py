"""SGLang's source text, and what it declares, read without importing it.

Of what is installed, or of another release that is unpacked: SGLANG_SRC is the folder that then holds `sglang/`, and
SGLANG_VERSION its release. SGL_KERNEL_SRC and SGL_KERNEL_VERSION are those of `sgl_kernel/`.
"""

from __future__ import annotations

import ast
import os
from functools import cache
from pathlib import Path

import pytest

from sgl_proxythinker.upstream.record import Sources

_ROUTE_METHODS = {
    "get", "post", "put", "patch", "delete", "head", "options", "websocket", "route", "api_route", "mount",
    "add_route", "add_api_route", "add_websocket_route", "add_api_websocket_route",
}  # fmt: skip


def is_unpacked(package: str = "sglang") -> bool:
    """Whether the sources are another release's than what is imported."""
    return f"{package.upper()}_SRC" in os.environ


def sources_of(package: str) -> Sources:
    if is_unpacked(package):
        name = package.upper()
        return Sources(Path(os.environ[f"{name}_SRC"]), os.environ[f"{name}_VERSION"])
    return Sources.installed(package)


SOURCE = sources_of("sglang").root
of_what_is_imported = pytest.mark.skipif(is_unpacked(), reason="SGLANG_SRC is not the release that is imported")


def declared_fields(symbol: str) -> set[str]:
    """The fields of a dataclass, a pydantic model or a struct, `module:Class`; those of its bases in SGLang too.

    Raises:
        ValueError: there are none, so they must stand somewhere else.
    """
    module, _, name = symbol.partition(":")
    if not (fields := _fields(module, name)):
        raise ValueError(f"{symbol} declares no fields")
    return fields


def declared_arguments() -> set[str]:
    """The fields of `ServerArgs`. Later releases (0.5.23) put it together of namespaces, which declare them."""
    folder = SOURCE / "sglang" / "srt" / "arg_groups" / "fields"
    if not folder.exists():
        return declared_fields("sglang.srt.server_args:ServerArgs")
    modules = [f"sglang.srt.arg_groups.fields.{file.stem}" for file in folder.glob("*.py") if file.stem != "__init__"]
    return set().union(*(_fields(module, name) for module in modules for name in _classes(module)))


def declared_routes(module: str = "sglang.srt.entrypoints.http_server", application: str = "app") -> set[str]:
    """The paths of an application and of the routers that it includes.

    Raises:
        ValueError: a path is put together in a way that can't be read here.
    """
    routes = set()
    for node in ast.walk(_parse(module)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=method)) if owner == application:
                if method == "include_router":
                    routes |= _included(module, node)
                elif method in _ROUTE_METHODS and (path := _path(module, node.args[0])) is not None:
                    routes.add(path)
    return routes


def _fields(module: str, name: str) -> set[str]:
    found = _classes(module)[name]
    fields = set()
    for base in found.bases:
        if isinstance(base, ast.Name) and (home := _home(module, base.id)):
            fields |= _fields(home, base.id)
    is_dataclass = any("dataclass" in ast.unparse(decorator) for decorator in found.decorator_list)
    # Annotations of a class that is neither a dataclass nor made a model or a struct by a base are no fields.
    if is_dataclass or found.bases:
        annotated = {ast.unparse(node.target): node for node in found.body if isinstance(node, ast.AnnAssign)}
        # What begins with an underscore is private to a model.
        fields |= {
            field
            for field, node in annotated.items()
            if not _is_of_the_class(node.annotation) and (is_dataclass or not field.startswith("_"))
        }
    return fields


def _is_of_the_class(annotation: ast.expr) -> bool:
    return ast.unparse(annotation).partition("[")[0] in ("ClassVar", "typing.ClassVar")


def _classes(module: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _parse(module).body if isinstance(node, ast.ClassDef)}


def _included(module: str, call: ast.Call) -> set[str]:
    match call:
        case ast.Call(args=[ast.Name(id=name)], keywords=[]):
            for node in _imports(module):
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return declared_routes(node.module, alias.name)
    raise ValueError(f"can't be read: {ast.unparse(call)}")


def _path(module: str, node: ast.expr) -> str | None:
    """A literal, or the default of what is taken from the environment; None: a route only where that names one."""
    match node:
        case ast.Constant(value=str(path)):
            return path
        case ast.Call(func=ast.Attribute(attr="get"), args=[_, default]):
            return _path(module, default)
        case ast.Call(func=ast.Attribute(attr="get"), args=[_]):
            return None
        case ast.Name(id=name):
            for statement in _parse(module).body:
                if isinstance(statement, ast.Assign) and name in map(ast.unparse, statement.targets):
                    return _path(module, statement.value)
    raise ValueError(f"can't be read: a route at {ast.unparse(node)}")


def _home(module: str, name: str) -> str | None:
    """The module of SGLang's that defines a class which `module` names; None for a class of another package."""
    if name in _classes(module):
        return module
    for node in _imports(module):
        if name in {alias.name for alias in node.names}:
            return _home(node.module, name)
    return None


def _imports(module: str) -> list[ast.ImportFrom]:
    """What a module imports from SGLang."""
    nodes = (node for node in ast.walk(_parse(module)) if isinstance(node, ast.ImportFrom))
    return [node for node in nodes if (node.module or "").startswith("sglang.")]


@cache
def _parse(module: str) -> ast.Module:
    path = SOURCE / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text())
