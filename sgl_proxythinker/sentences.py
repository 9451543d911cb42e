"""One sentence for one mistake: how a refused value is shown, and what is made of a validation error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

MAX_SENTENCE = 900  # characters; with a name and a status still under 1,000

_LONG = 200  # characters; a picture or a prompt is longer, and nothing of it is shown
_SHOWN = 60  # characters of a value
_READ = 40 * MAX_SENTENCE  # characters of a message, which may hold all that a client sent


def shown(value: Any) -> str:
    """A value as a sentence can show it: its beginning, and for a container only what it is."""
    if isinstance(value, Mapping):
        return f"an object of {len(value)} names"
    if isinstance(value, (list, tuple, set)):
        return f"a list of {len(value)}" if len(value) > 4 or _is_deep(value) else _cut(repr(value))
    if isinstance(value, str) and len(value) > _LONG:
        return f"a text of {len(value):,} characters"
    if isinstance(value, (str, int, float, bool, type(None))):
        return _cut(_as_json(value))
    return f"a {type(value).__name__}"


def sentence_of(errors: Sequence[Mapping[str, Any]], where: str = "") -> str:
    """The most telling of pydantic's errors as one sentence.

    Args:
        errors: as `ValidationError.errors()` or FastAPI's `RequestValidationError.errors()` give them. A union has one
            for each of its branches; the one that got deepest is of the branch that was meant.
        where: what the names are within, such as `sampling_params.`.
    """
    if any(isinstance(error.get("input"), bytes) for error in errors):
        return "the body was not read as JSON: send it with the header Content-Type: application/json."
    error = max(errors, key=lambda item: (len(_path(item["loc"])), item["type"] != "literal_error"))
    name = where + (_path_text(_path(error["loc"])) or "the body")
    if error["type"] == "missing":
        return f"{name} is missing."
    if error["type"] == "extra_forbidden":
        return f"{name} is not known here."
    if error["type"] == "json_invalid":
        return "the body is no valid JSON."
    message = _INSTEAD.get(error["type"], error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message.replace("Input should be", "it should be").rstrip(".")
    got = f" is {shown(error['input'])}" if "input" in error else ""
    return tidy(f"{name}{got}: {message}.")


# Of pydantic's words for which a person needs others.
_INSTEAD = {
    "model_type": "send an object",
    "int_parsing_size": "send an integer of at most 64 bits",
    "string_pattern_mismatch": "send a text without control characters",
}


def tidy(text: str) -> str:
    """A message from anywhere, short and on one line, without addresses of objects, paths of this machine, pictures."""
    text = _SOURCE.sub("", text[:_READ])
    text = _OBJECT.sub(lambda match: f"a {match[1].rsplit('.', 1)[-1]}", text)
    text = _ADDRESS.sub("", text)
    text = _PAYLOAD.sub("...", text)
    text = _TRACE.sub("", text)
    text = _PATH.sub(r"\1...", text)
    text = " ".join(text.split())
    return text if len(text) <= MAX_SENTENCE else text[: MAX_SENTENCE - 3] + "..."


# "[xgrammar.cc:12]" and "parser.rs:3:": where a compiled library stood.
_SOURCE = re.compile(r"\[[^\[\]]{0,200}\.(?:cc|cpp|h):\d+\]|(?<!\S)\S{1,200}\.(?:cc|cpp|h|rs):\d+:?")
_OBJECT = re.compile(r"<([\w.]+) (?:object|[^<>]{0,200}?) ?at 0x[0-9a-fA-F]+>")
_ADDRESS = re.compile(r"(?: at)? ?\b0x[0-9a-fA-F]{6,}")
_PAYLOAD = re.compile(r"[A-Za-z0-9+/=_%-]{200,}")
_TRACE = re.compile(r'File "[^"]{0,500}", line \d+(?:, in \S+)?')
# An absolute path of at least three parts is one of this machine; a route of this server has fewer dots and parts.
_PATH = re.compile(r"(^|[\s'\"(=])/(?:[\w.@+-]+/){2,}[\w.@+-]*\.[\w]+")


def _path(loc: Sequence[Any]) -> list[Any]:
    """Without `body` in front, and without names of classes that pydantic puts in for the branches of a union."""
    return [
        part
        for part in loc
        if isinstance(part, int)
        or (all(map(str.isidentifier, part.split("."))) and not part[0].isupper() and part not in _BRANCHES)
    ]


# What pydantic calls branches of a union that are plain types.
_BRANCHES = frozenset({"body", "str", "int", "float", "bool", "list", "dict", "none"})


def _path_text(path: Sequence[Any]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")[:200]


def _as_json(value: Any) -> str:
    return (
        {None: "null", True: "true", False: "false"}[value]
        if value is None or value is True or value is False
        else repr(value)
    )


def _is_deep(value: Any) -> bool:
    return any(isinstance(item, (list, tuple, set, Mapping)) for item in value)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
