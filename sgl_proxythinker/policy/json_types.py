"""The JSON types of a body's fields: `"yes"` is not true and `true` is no number, as pydantic alone would have it."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.sentences import shown

Scalars = frozenset[type]

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def scalars_of(annotation: Any) -> Scalars | None:
    """The types of a field that holds scalars, or lists of them; None for one that may hold anything else.

    Args:
        annotation: of a pydantic field or a dataclass field, resolved.
    """
    if annotation is type(None):
        return frozenset()
    if annotation in _WORDS:
        return frozenset([annotation])
    if get_origin(annotation) is Annotated:
        return scalars_of(get_args(annotation)[0])
    if get_origin(annotation) not in (Union, types.UnionType, list):
        return None
    parts = [scalars_of(part) for part in get_args(annotation)]
    known = [part for part in parts if part is not None]
    return frozenset().union(*known) if len(known) == len(parts) else None


def check_types(body: Mapping[str, Any], fields: Mapping[str, Scalars]) -> None:
    """Refuse a scalar of another type than its field has; what is no scalar is left to SGLang's own models.

    Args:
        body: parsed JSON.
        fields: the types of each field that holds scalars. A whole number may be written as 4.0.

    Raises:
        RequestError: names the field, what came and what is wanted.
    """
    for field in body.keys() & fields.keys():
        wanted = fields[field]
        # A prompt may be a list of a hundred thousand ids: most lists are of one type.
        for item in _one_of_each_type(body[field]):
            if isinstance(item, tuple(_WORDS)) and not _fits(item, wanted):
                words = [_WORDS[kind] for kind in _WORDS if kind in wanted and not (kind is int and float in wanted)]
                raise RequestError(f"{field} is {shown(item)}: send {' or '.join(words)}.")


def _one_of_each_type(value: Any, levels: int = 2) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    if levels and not {list, float}.isdisjoint(map(type, value)):
        return [item for inner in value for item in _one_of_each_type(inner, levels - 1)]
    return list({type(item): item for item in value}.values())


def _fits(item: Any, wanted: Scalars) -> bool:
    if type(item) is int:
        return int in wanted or float in wanted
    if type(item) is float:
        return float in wanted or (int in wanted and item.is_integer())
    return type(item) in wanted
