"""The part of the radix tree whose prefixes only the base has read."""

from __future__ import annotations

_MARK = "proxythinker:base"


def keep_apart(extra_key: str | None) -> str:
    """The key of a request that the base answers alone.

    Args:
        extra_key: the request's own `extra_key` (with its `cache_salt`), which goes on dividing the tree.
    """
    return f"{extra_key or ''}|{_MARK}"


def is_kept_apart(extra_key: str | None) -> bool:
    return extra_key is not None and extra_key.endswith(f"|{_MARK}")
