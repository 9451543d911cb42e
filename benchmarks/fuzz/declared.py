"""SGLang's own declarations of what may come in: its routes, the class of each body, and the fields of any class.

Read from the classes, so that a field or a route of a later SGLang is fuzzed without anybody naming it.
"""

from __future__ import annotations

import dataclasses
import typing
from functools import cache
from typing import Any

import msgspec
from pydantic import BaseModel

from sgl_proxythinker.launch import cpu


@cache
def bodies() -> dict[tuple[str, str], Any]:
    """The type of the JSON body of each method and path of SGLang's HTTP application; None where it has none."""
    if cpu.is_needed(None):
        cpu.install()
    from sglang.srt.entrypoints import http_server

    found: dict[tuple[str, str], Any] = {}
    for route in http_server.app.routes:
        body = getattr(route, "body_field", None)
        for method in sorted(getattr(route, "methods", None) or ()):
            found[method, route.path] = body and body.field_info.annotation
    return found


@cache
def guarded() -> frozenset[tuple[str, str]]:
    """Methods and paths that SGLang answers only with the admin's key, where a server has one."""
    bodies()
    from sglang.srt.entrypoints import http_server
    from sglang.srt.utils.auth import AuthLevel

    return frozenset(
        (method, route.path)
        for route in http_server.app.routes
        for method in getattr(route, "methods", None) or ()
        if getattr(getattr(route, "endpoint", None), "_auth_level", AuthLevel.NORMAL) is not AuthLevel.NORMAL
    )


@cache
def sampling_params() -> type:
    """What `sampling_params` of a body becomes, which its declaration (a dict) doesn't say."""
    bodies()
    from sglang.srt.sampling.sampling_params import SamplingParams

    return SamplingParams


def is_declared(kind: Any) -> bool:
    """Whether `fields_of` can tell the fields of this type."""
    if not isinstance(kind, type) or typing.get_origin(kind) is not None:
        return False
    return issubclass(kind, BaseModel | msgspec.Struct) or dataclasses.is_dataclass(kind)


@cache
def fields_of(kind: type) -> dict[str, Any]:
    """Types by the field's name in JSON, of a pydantic model, a msgspec struct or a dataclass."""
    if issubclass(kind, BaseModel):
        return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    if issubclass(kind, msgspec.Struct):
        return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    return typing.get_type_hints(kind)


@cache
def required_of(kind: type) -> frozenset[str]:
    """Names of the fields that have no default."""
    if issubclass(kind, BaseModel):
        return frozenset(field.alias or name for name, field in kind.model_fields.items() if field.is_required())
    if issubclass(kind, msgspec.Struct):
        return frozenset(field.encode_name for field in msgspec.structs.fields(kind) if field.required)
    missing = dataclasses.MISSING
    return frozenset(f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing)
