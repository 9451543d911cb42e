"""JSON schemas without a finite value: an object that needs itself, and so on for ever.

A grammar that is compiled from one admits beginnings and no whole text.
"""

from __future__ import annotations

import json
from typing import Any

# Of a schema that takes longer to look at, nothing is said.
_MOST_STEPS = 20_000


class _TooLong(Exception):
    pass


def never_ends(schema: str) -> bool:
    """Whether every value of a JSON schema contains another one of itself.

    Args:
        schema: its text. What isn't understood (other documents, keywords beside those of structure) counts as finite.
    """
    try:
        root = json.loads(schema)
        return not _Look(root).is_finite(root, frozenset())
    except (ValueError, RecursionError, _TooLong):
        return False


class _Look:
    def __init__(self, root: Any):
        self._root = root
        self._steps = 0

    def is_finite(self, schema: Any, inside: frozenset[str]) -> bool:
        """Whether it has a value that can be written down, without the references that one is inside of."""
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise _TooLong
        if not isinstance(schema, dict):
            return True
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            if reference in inside:
                return False
            target = self._target(reference)
            if target is not None and not self.is_finite(target, inside | {reference}):
                return False
        if "const" in schema or "enum" in schema:
            return True
        for name in ("anyOf", "oneOf"):
            options = schema.get(name)
            if isinstance(options, list) and options and not any(self.is_finite(one, inside) for one in options):
                return False
        parts = schema.get("allOf")
        if isinstance(parts, list) and not all(self.is_finite(part, inside) for part in parts):
            return False
        types = schema.get("type")
        types = [types] if isinstance(types, str) else types
        if not isinstance(types, list) or not types:
            return True
        return any(self._has_finite(kind, schema, inside) for kind in types)

    def _has_finite(self, kind: Any, schema: dict, inside: frozenset[str]) -> bool:
        if kind == "object":
            properties, required = schema.get("properties"), schema.get("required")
            properties = properties if isinstance(properties, dict) else {}
            names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
            return all(self.is_finite(properties.get(name), inside) for name in names)
        if kind == "array":
            first, least = schema.get("prefixItems"), schema.get("minItems")
            first, least = first if isinstance(first, list) else [], least if isinstance(least, int) else 0
            items = [*first[:least], *([schema.get("items")] if least > len(first) else [])]
            return all(self.is_finite(item, inside) for item in items)
        return True

    def _target(self, reference: str) -> Any:
        found = self._root
        for part in reference.removeprefix("#").removeprefix("/").split("/") if reference != "#" else ():
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
                found = found[int(part)]
            else:
                return None
        return found
