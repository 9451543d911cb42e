"""The messages of a conversation: their shape and size, in one sentence where SGLang has one error for each guess."""

from __future__ import annotations

from typing import Any

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.pictures.part import check_picture_part
from sgl_proxythinker.policy.bounds import Bounds
from sgl_proxythinker.policy.sampling_fields import depth
from sgl_proxythinker.sentences import shown

# Of OpenAI's chat and of Anthropic's messages, as SGLang declares them.
_PARTS = frozenset(
    "text image_url video_url audio_url thinking reasoning redacted_thinking image tool_use tool_result "
    "server_tool_use web_search_tool_result search_result document".split()
)
_ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function", "latest_reminder"))
_NAMES_OF_OTHERS = {
    "input_image": '{"type": "image_url", "image_url": {"url": ...}}',
    "input_text": '{"type": "text", "text": ...}',
    "input_audio": "text and images; the models read no audio",
    "file": "the images of its pages",
    "image_file": '{"type": "image_url", "image_url": {"url": ...}}',
    "tool_reference": "the whole tool in `tools`: chat templates have no place for references",
}

_OF_RESULTS = frozenset(("text", "image", "search_result"))
# A part holds what its type says; Anthropic's other parts have names of their own.
_PAYLOADS = frozenset(("text", "image_url", "video_url", "audio_url"))
_PICTURES = {
    False: '{"type": "image_url", "image_url": {"url": "..."}}',
    True: '{"type": "image", "source": {"type": "url", "url": "..."}}',
}


def check_messages(messages: Any, bounds: Bounds, is_anthropic: bool) -> None:
    """Refuse messages that are no list of objects with a role, parts of an unknown type, and more than is taken.

    Args:
        messages: as they came.
        bounds: the server's.
        is_anthropic: in Anthropic's form, and not in OpenAI's.

    Raises:
        RequestError: names the place, what came and what is wanted.
    """
    if not isinstance(messages, list):
        raise RequestError(f'messages is {shown(messages)}: send a list such as [{{"role": "user", "content": "Hi"}}].')
    if not messages:
        raise RequestError("messages is an empty list: send at least one message.")
    _check_count("messages", messages, bounds)
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, dict):
            raise RequestError(
                f'{where} is {shown(message)}: send an object such as {{"role": "user", "content": "Hi"}}.'
            )
        role = message.get("role")
        if not isinstance(role, str) or role.lower() not in _ROLES:
            raise RequestError(f"{where}.role is {shown(role)}: send system, user, assistant or tool.")
        content = message.get("content")
        if isinstance(content, list):
            _check_count(f"{where}.content", content, bounds)
            for at, part in enumerate(content):
                _check_part(part, f"{where}.content[{at}]", is_anthropic, role.lower())
        elif content is not None and not isinstance(content, str):
            raise RequestError(f"{where}.content is {shown(content)}: send a text, or a list of parts.")
        elif content is None and message["role"] not in ("assistant", "tool", "function"):
            raise RequestError(
                f"{where}.content is null: a message of the {shown(message['role'])} role needs a text or parts."
            )


_DEEPEST = 16  # levels of a part: results of tools hold parts too


def _check_part(part: Any, where: str, is_anthropic: bool, role: str) -> None:
    kind = _check_kind(part, where)
    if kind == ("image_url" if is_anthropic else "image"):
        raise RequestError(f"{where}.type is {shown(kind)}: here it is {_PICTURES[is_anthropic]}.")
    if kind == "image_url" and not isinstance(part.get("image_url"), dict):
        raise RequestError(f"{where}.image_url is {shown(part.get('image_url'))}: send {_PICTURES[False]}.")
    if kind == "text" and not isinstance(part.get("text"), str):
        raise RequestError(f"{where}.text is {shown(part.get('text'))}: send a text.")
    others = _PAYLOADS - {kind} if kind in _PAYLOADS else ()
    if second := next((name for name in others if part.get(name) is not None), None):
        raise RequestError(f"{where} is of the type {shown(kind)}, and its {second} would be lost: send two parts.")
    if depth(part) > _DEEPEST:
        raise RequestError(f"{where} is nested too deep: parts have at most {_DEEPEST} levels.")
    if kind == "tool_result":
        _check_result(part, where, role)
    if kind != "text":
        check_picture_part(part, where)


def _check_result(part: dict[str, Any], where: str, role: str) -> None:
    """Of a tool: SGLang writes its texts, and pictures that the user sends, and passes over the rest."""
    inner = part.get("content")
    for at, item in enumerate(inner if isinstance(inner, list) else []):
        kind = _check_kind(item, f"{where}.content[{at}]")
        if kind not in _OF_RESULTS or (kind == "image" and role == "assistant"):
            raise RequestError(
                f"{where}.content[{at}] is of the type {shown(kind)}, which would be lost in the result of a tool of "
                f"the {shown(role)} role: send text, or pictures of the user."
            )


def tell_errors(messages: Any) -> None:
    """Say in the result of a tool that it is an error: SGLang drops `is_error`, and agents set it for the model to see.

    Args:
        messages: in Anthropic's form, checked; changed in place.
    """
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            # Of another type it is left to SGLang, which says so.
            if part.get("type") == "tool_result" and part.get("is_error") is True:
                del part["is_error"]
                result = part.get("content")
                if isinstance(result, list):
                    part["content"] = [{"type": "text", "text": "Error:"}, *result]
                else:
                    part["content"] = f"Error: {result or ''}".rstrip()


def _check_kind(part: Any, where: str) -> str:
    """The type of a part, which is known."""
    if not isinstance(part, dict):
        raise RequestError(f'{where} is {shown(part)}: send an object such as {{"type": "text", "text": "Hi"}}.')
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _PARTS:
        instead = _NAMES_OF_OTHERS.get(kind) if isinstance(kind, str) else None
        raise RequestError(f"{where}.type is {shown(kind)}: send {instead or 'text or image_url'}.")
    return kind


def _check_count(where: str, items: list[Any], bounds: Bounds) -> None:
    if len(items) > (most := bounds.limits.max_messages):
        raise RequestError(
            f"{where} has {len(items):,} entries, and this server takes {most:,} (--proxy-max-messages raises it)."
        )
