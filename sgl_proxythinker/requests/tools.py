"""Tools (function calling) of a chat: they reach the model and a call comes back, or the request is a 400."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guards.stop_regex import takes_long_to_build

CHOICES = ("none", "auto", "required")

# Of all tools of a request. SGLang checks their schemas between the steps of all others: a quarter of a millisecond for
# each object, and a list of things that have no order is compared thing by thing.
_MOST_OBJECTS, _MOST_ENTRIES, _MOST_OF_A_LIST = 4096, 8192, 1024
_MOST_OF_A_PATTERN, _MOST_OF_PATTERNS = 1000, 16_000  # characters


def check_calls(messages: Sequence[Mapping[str, Any]], template_renders_calls: bool) -> None:
    """Refuse calls in earlier turns that the model would not see.

    Args:
        messages: of a chat, as OpenAI has it.
        template_renders_calls: whether the chat template writes them into the prompt.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    for number, message in enumerate(messages):
        if message.get("tool_calls") and not template_renders_calls:
            raise RequestError(
                f"messages[{number}].tool_calls can't be used here: the model's chat template has no place for calls, "
                "so it would never see them; start the server with a --chat-template that has one, or write them into "
                "the message's text."
            )


def check_tools(body: Mapping[str, Any], template_renders_tools: bool, parser: str | None) -> None:
    """Refuse `tools` that the model would not see, whose calls would not be found, or that are no functions.

    Args:
        body: the JSON object of a chat, as OpenAI has it.
        template_renders_tools: whether the chat template writes them into the prompt.
        parser: the server's --tool-call-parser; None when it was started without one.

    Raises:
        RequestError: HTTP 400 with the reason. `tool_choice` "none" asks for no call: tools are then left out of the
            prompt, as OpenAI defines it, and nothing but their form is checked.
    """
    tools = body.get("tools") or []
    for message in body.get("messages") or []:
        if isinstance(message, Mapping) and message.get("tools"):
            raise RequestError("a message has tools: chat templates read them from the field `tools` of the request.")
    names = _names(tools)
    choice = body.get("tool_choice")
    named = _named(choice)
    if not tools:
        if named or choice == "required":
            raise RequestError("tool_choice asks for a call, but `tools` is empty: send the tools, or leave it out.")
        return
    if choice == "none":
        return
    if named and named not in names:
        raise RequestError(f"tool_choice names {named[:60]!r}, which is none of the tools: {', '.join(names)[:200]}.")
    if body.get("input_ids"):
        raise RequestError(
            "tools and input_ids are both set: the ids are the whole prompt, so the model would never see the tools; "
            "leave one of them out."
        )
    if not template_renders_tools:
        raise RequestError(
            "tools can't be used here: the model's chat template has no place for them, so it would never see them; "
            "start the server with a --chat-template that has one, or describe them in a message."
        )
    if parser is None:
        raise RequestError(
            "tools can't be used here: the server was started without --tool-call-parser, so a call would stay in the "
            "text of the answer; start it with one (qwen25 for Qwen's, llama3 for Llama's)."
        )
    _refuse_other_forms(body)
    if body.get("parallel_tool_calls") is False and not named and choice != "required":
        raise RequestError(
            "parallel_tool_calls is false: the number of calls is bounded only where tool_choice asks for one; send "
            'tool_choice "required" or a named function, or leave it out.'
        )


def check_schemas(tools: Any) -> None:
    """Refuse tools whose schemas take long to look at, before anybody does.

    Args:
        tools: as they came.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    objects = entries = chars = 0
    rest = [tools]
    while rest:
        item = rest.pop()
        if isinstance(item, (Mapping, bool)):  # true and false are schemas
            objects += 1
        if isinstance(item, Mapping):
            rest.extend(item.values())
            named = item.get("patternProperties")
            for pattern in (item.get("pattern"), *(named if isinstance(named, Mapping) else ())):
                if isinstance(pattern, str):
                    chars += len(pattern)
                    _check_pattern(pattern, chars)
        elif isinstance(item, list):
            entries += len(item)
            if len(item) > _MOST_OF_A_LIST:
                raise RequestError(f"tools have a list of {len(item):,} entries: {_MOST_OF_A_LIST:,} are the most.")
            rest.extend(item)
    if objects > _MOST_OBJECTS or entries > _MOST_ENTRIES:
        raise RequestError(
            f"tools have {objects:,} objects and {entries:,} entries of lists, and this server takes "
            f"{_MOST_OBJECTS:,} and {_MOST_ENTRIES:,}: send fewer tools, or simpler ones."
        )


def _check_pattern(pattern: str, chars: int) -> None:
    """Python's `re` compiles them where their schema is checked. `chars`: of all patterns so far."""
    if len(pattern) > _MOST_OF_A_PATTERN or chars > _MOST_OF_PATTERNS:
        raise RequestError(
            f"tools have a pattern of {len(pattern):,} characters, and {chars:,} with those before it: "
            f"{_MOST_OF_A_PATTERN:,} and {_MOST_OF_PATTERNS:,} are the most."
        )
    if takes_long_to_build(pattern):
        raise RequestError(
            f"tools have the pattern {pattern[:80]!r}, which ignores case (i) and has a set of other than plain "
            "characters: write both cases."
        )
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise RequestError(f"tools have the pattern {pattern[:80]!r}, which can't be read: {error}.") from None


def check_tool_forms(body: Mapping[str, Any]) -> None:
    """Refuse tools that are no functions, whatever the server does with functions.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    _names(body.get("tools") or [])


def as_object(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """Parameters of a function as a schema that admits objects only: with `properties` alone, null and 5 are valid."""
    return {"properties": {}, **(schema or {}), "type": "object"}


def messages_body_as_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """The tools of a body of /v1/messages, in OpenAI's form, for `check_tools`.

    Raises:
        RequestError: a tool that Anthropic's own servers run, or a wish that SGLang drops.
    """
    tools = []
    for number, tool in enumerate(body.get("tools") or []):
        if not isinstance(tool, Mapping):
            raise RequestError(f"tools[{number}] is no object.")
        if tool.get("type") not in (None, "custom"):
            raise RequestError(
                f"tools[{number}] has the type {str(tool['type'])[:60]!r}: this server runs no tools of its own; send "
                "functions with an input_schema."
            )
        function = {"name": tool.get("name"), "parameters": tool.get("input_schema")}
        tools.append({"type": "function", "function": function})
    choice = body.get("tool_choice") or {}
    if isinstance(choice, Mapping) and choice.get("disable_parallel_tool_use"):
        raise RequestError("tool_choice.disable_parallel_tool_use can't be used: SGLang drops it; leave it out.")
    kind: Any = choice.get("type") if isinstance(choice, Mapping) else None
    named = {"type": "function", "function": {"name": choice.get("name")}} if kind == "tool" else None
    return {"tools": tools, "tool_choice": named or {"any": "required"}.get(kind, kind)}


def _names(tools: Any) -> list[str]:
    if not isinstance(tools, list):
        raise RequestError(f"tools is {_shown(tools)}: send a list of functions.")
    names: dict[str, None] = {}
    for number, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or tool.get("type", "function") != "function":
            raise RequestError(
                f'tools[{number}] is no function: send {{"type": "function", "function": {{"name": .., "parameters": '
                "{..}}}; other kinds of tools are not known here."
            )
        name, parameters = function.get("name"), function.get("parameters")
        if not isinstance(name, str) or not name:
            raise RequestError(f"tools[{number}].function.name is {_shown(name)}: send a name.")
        if name in names:
            raise RequestError(
                f"tools has two functions with the name {name[:60]!r}: their calls could not be told apart."
            )
        if parameters is not None and not (
            isinstance(parameters, Mapping) and parameters.get("type", "object") == "object"
        ):
            raise RequestError(
                f"tools[{number}].function.parameters is not the schema of an object: arguments have names, so its "
                'type is "object".'
            )
        names[name] = None
    return list(names)


def _named(choice: Any) -> str | None:
    """The function that a `tool_choice` names; None when it is one of `CHOICES` or not set."""
    if choice is None or choice in CHOICES:
        return None
    function = (
        choice.get("function") if isinstance(choice, Mapping) and choice.get("type", "function") == "function" else None
    )
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        raise RequestError(
            f'tool_choice is {_shown(choice)}: send "none", "auto", "required" or {{"type": "function", "function": '
            '{"name": ..}}.'
        )
    return name


def _refuse_other_forms(body: Mapping[str, Any]) -> None:
    """A grammar for the whole answer and one for calls exclude each other; SGLang drops the tools' one."""
    given = [name for name in ("regex", "ebnf") if body.get(name) is not None]
    form = body.get("response_format")
    if isinstance(form, Mapping) and form.get("type", "text") != "text":
        given.append("response_format")
    if given:
        raise RequestError(
            f"tools and {given[0]} can't be used together: an answer has one form; send one of them, or tool_choice "
            '"none".'
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
