"""JSON schema keywords that xgrammar reads over: an answer would not keep to them, and nobody would know.

SGLang's other grammar library, llguidance, obeys each of them or says that it can't.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sgl_proxythinker.errors import RequestError

# Found by trying: tests/test_unread_keywords.py has a value for each that xgrammar 0.2.1 takes and the schema forbids.
_UNREAD = ("not", "if", "multipleOf", "contains", "dependentRequired", "dependentSchemas", "dependencies")
# Where schemas stand in a schema; elsewhere the same names are a client's own, such as those of properties.
_ONE = ("items", "additionalProperties", "propertyNames", "additionalItems", "unevaluatedProperties")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")


def check_keywords(schema: str, name: str) -> None:
    """Refuse a schema with a keyword that xgrammar reads over.

    Args:
        schema: its text, valid JSON of bounded depth.
        name: what the client calls the field.

    Raises:
        RequestError: names the keyword.
    """
    for each in _schemas(json.loads(schema)):
        keyword = next((keyword for keyword in _UNREAD if each.get(keyword) not in (None, {}, [])), None)
        if keyword is None and each.get("uniqueItems") is True:
            keyword = "uniqueItems"
        if keyword is None and isinstance(each.get("allOf"), list) and len(each["allOf"]) > 1:
            keyword = "allOf of several schemas"
        if keyword is not None:
            raise RequestError(
                f"{name} has {keyword}, which xgrammar reads over, so the answer would not keep to it: say it another "
                "way, or start the server with --grammar-backend llguidance."
            )


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
