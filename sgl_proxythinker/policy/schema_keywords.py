"""JSON schema keywords that xgrammar reads over: an answer would not keep to them, and nobody would know.

SGLang's other grammar library, llguidance, obeys each of them or says that it can't. What is listed here was found by
trying; xgrammar may read over more in combinations of keywords that stand nowhere below.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sgl_proxythinker.errors import RequestError

# tests/test_unread_keywords.py has, for each rule here, a value that xgrammar 0.2.1 takes and the schema forbids.
_UNREAD = ("if", "multipleOf", "contains", "dependentRequired", "dependentSchemas", "dependencies")
_OF_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_OF_TEXTS = ("minLength", "maxLength", "pattern", "format")
_VALIDATING = (
    *_OF_NUMBERS, *_OF_TEXTS, "properties", "required", "items", "minItems", "maxItems", "prefixItems",
    "additionalProperties", "minProperties", "maxProperties", "patternProperties", "propertyNames",
)  # fmt: skip
_CHOICES = ("anyOf", "oneOf", "allOf", "$ref")
_ANNOTATIONS = frozenset("title description default examples deprecated readOnly writeOnly $comment".split())
# Where schemas stand in a schema; elsewhere the same names are a client's own, such as those of properties.
_ONE = ("items", "additionalProperties", "propertyNames", "additionalItems", "unevaluatedProperties")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")


def check_keywords(schema: Any, name: str) -> None:
    """Refuse a schema with a keyword that xgrammar reads over.

    Args:
        schema: a JSON schema, of bounded depth.
        name: what the client calls the field.

    Raises:
        RequestError: names the keyword.
    """
    for each in _schemas(schema):
        if unread := _unread(each):
            raise RequestError(
                f"{name} has {unread}, which xgrammar reads over, so the answer would not keep to it: say it another "
                "way, or start the server with --grammar-backend llguidance."
            )


def _unread(schema: dict[str, Any]) -> str | None:
    """What of this one schema, without those in it, xgrammar reads over."""
    given = {keyword for keyword, value in schema.items() if value not in (None, [], {})}
    if schema.get("not") not in (None, False):
        return "not"
    if keyword := next((keyword for keyword in _UNREAD if keyword in given), None):
        return keyword
    if schema.get("uniqueItems") is True:
        return "uniqueItems"
    parts = schema.get("allOf")
    if isinstance(parts, list) and sum(not _says_nothing(part) for part in parts) > 1:
        return "allOf of several schemas"
    choice = next((keyword for keyword in _CHOICES if keyword in given), None)
    beside = next((keyword for keyword in _VALIDATING if keyword in given), None)
    if choice and beside:
        return f"{beside} beside {choice}"
    kind = schema.get("type")
    bound = next((keyword for keyword in _OF_NUMBERS if keyword in given), None)
    if bound and (kind not in ("integer", "number") or (kind == "number" and bound.startswith("exclusive"))):
        return f"{bound} without one type that it is obeyed for"
    text = next((keyword for keyword in _OF_TEXTS if keyword in given), None)
    if text and kind != "string":
        return f"{text} without one type that it is obeyed for"
    if given & {"minLength", "maxLength"} and given & {"pattern", "format"}:
        return "a length beside pattern or format"
    return None


def _says_nothing(schema: Any) -> bool:
    return schema is True or (isinstance(schema, dict) and schema.keys() <= _ANNOTATIONS)


def _schemas(root: Any) -> Iterator[dict[str, Any]]:
    rest = [root]
    while rest:
        schema = rest.pop()
        if not isinstance(schema, dict):
            continue
        yield schema
        rest.extend(schema.get(name) for name in _ONE)
        for name in _LISTS:
            inner = schema.get(name)
            rest.extend(inner if isinstance(inner, list) else [])
        for name in _MAPS:
            inner = schema.get(name)
            rest.extend(inner.values() if isinstance(inner, dict) else [])
