"""Wishes in a place where nobody reads them: `proxy_alpha` at the top of a body, in `extra_body`, in `metadata`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guidance import KNOWN_KEYS, PREFIX

# Objects of a body in which people and libraries put what is not OpenAI's. Messages, tools and schemas are a client's
# own matter: whatever stands there is never looked at.
CONTAINERS = frozenset((
    "extra_body", "extraBody", "extra_params", "extraParams", "extra_args", "extra_fields", "extra_json", "extra",
    "metadata", "chat_template_kwargs", "template_kwargs", "mm_processor_kwargs", "sampling_params", "samplingParams",
    "customParams", "customparams", "custom-params", "provider_options", "providerOptions", "provider", "options",
    "parameters", "params", "kwargs", "model_kwargs", "modelKwargs", "generation_config", "generationConfig",
    "vllm_xargs", "nvext", "optional_params", "allowed_openai_params", "litellm_params", "additional_kwargs",
    "default_params", "stream_options", "reasoning", "instances", "response_metadata", "guidance", "proxy", "config",
    "inference_params", "inferenceParams", "inference_config", "sglang", "sglang_params", "extra_query",
    "extra_headers", "default_query", "default_headers", "extra_options", "engine_params", "settings",
))  # fmt: skip
# Of no route that declares them not: a conversation or a schema that went astray.
_NEVER_SEARCHED = frozenset(
    ("messages", "tools", "functions", "tool_choice", "response_format", "json_schema", "input")
)
# In these, names that begin with `proxy_` may be a network proxy's.
_OF_CLIENTS = frozenset(("config", "settings", "extra_headers", "default_headers", "extra_query", "default_query"))

_CAMEL = frozenset(key.replace("_", "") for key in KNOWN_KEYS)
_DEEPEST = 6


def check_places(body: Mapping[str, Any], right_place: str, read_in: str, declared: Collection[str]) -> None:
    """Refuse a wish for guidance where it would be lost.

    Args:
        body: a request's JSON object. `custom_params` at its top is not looked into: who reads it checks it.
        right_place: an example of a body, for the sentence.
        read_in: what paths begin with that are read where they stand, and checked there, as "sampling_params".
        declared: the names that SGLang declares for this body. An object under another name is a mistake for one of
            these, or a client's own: it is looked into for the exact names of wishes.

    Raises:
        RequestError: names the wrong place and shows the right one.
    """
    in_sampling_params = "sampling_params" in right_place
    for key in body:
        if _is_ours(key) or (in_sampling_params and key == "custom_params" and any(_found_in(body[key]))):
            _refuse(key, right_place)
    for name in body.keys() - CONTAINERS - set(declared) - _NEVER_SEARCHED - {"custom_params"}:
        for path in _found_in(_parsed(body[name]), exactly=True):
            _refuse(f"{name}.{path}", right_place)
    for container in body.keys() & CONTAINERS:
        inner = _parsed(body[container])
        for path in _found_in(inner, exactly=container in _OF_CLIENTS):
            where = f"{container}.{path}".replace(".[", "[")
            if not where.startswith((f"{read_in}.", f"{read_in}[")):
                _refuse(where, right_place)
        if "custom" in container.lower() and inner:
            _refuse(container, right_place)


def _parsed(value: Any) -> Any:
    """A container that came as the text of a JSON object, as form fields and some libraries send it."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _found_in(value: Any, path: str = "", level: int = 0, exactly: bool = False) -> Iterator[str]:
    """Paths of names that are ours, in objects and lists of a container.

    Args:
        exactly: names that are known, and not all that begin as ours do.
    """
    if level > _DEEPEST:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            here = f"{path}.{key}" if path else str(key)
            if _is_ours(key, exactly):
                yield here
            else:
                yield from _found_in(inner, here, level + 1, exactly)
    elif isinstance(value, list):
        for number, inner in enumerate(value[:1024]):
            yield from _found_in(inner, f"{path}[{number}]", level + 1, exactly)


def _is_ours(key: Any, exactly: bool = False) -> bool:
    if not isinstance(key, str):
        return False
    plain = key.lower().replace("-", "_")
    return (plain.startswith(PREFIX) and not exactly) or plain.replace("_", "") in _CAMEL


def _refuse(where: str, right_place: str) -> None:
    shown = where if len(where) <= 120 else where[:117] + "..."
    raise RequestError(f"{shown} is not read there, so it would be lost: send {right_place}.")
