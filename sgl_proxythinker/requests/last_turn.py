"""The last turn of a chat: an assistant's is rendered as one, and is continued where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgl_proxythinker.errors import RequestError


def check_last_turn(body: Mapping[str, Any]) -> None:
    """Refuse `continue_final_message` where there is nothing that could be continued.

    Args:
        body: the JSON object of a chat. A last message whose content is a list of text parts is continued as their
            joined text (`text_of`).

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    if not body.get("continue_final_message"):
        return
    if body.get("add_generation_prompt"):
        raise RequestError(
            "continue_final_message and add_generation_prompt are both true: one continues the last turn, the other "
            "begins a new one; send one of them."
        )
    if body.get("input_ids") is not None:
        raise RequestError("continue_final_message can't be used with input_ids: they are continued as they are.")
    messages: Any = body.get("messages")
    last: Any = messages[-1] if isinstance(messages, list) and messages else None
    role = last.get("role") if isinstance(last, Mapping) else None
    if not isinstance(role, str) or role.lower() != "assistant":
        raise RequestError(
            f"continue_final_message is true, but the last message is from {str(role)[:30]!r}: it continues an "
            "assistant's message; put one at the end, or leave it out."
        )
    if len(messages) == 1:
        raise RequestError(
            "continue_final_message has nothing before the message that it continues: send a user's first."
        )
    if last.get("tool_calls"):
        raise RequestError("continue_final_message can't continue a message with tool_calls; leave one of them out.")
    text_of(last.get("content"))


def text_of(content: Any) -> str:
    """The text of an assistant's message that is to be continued.

    Args:
        content: a string, or a list of text parts.

    Raises:
        RequestError: it has parts that are no text, or nothing at all.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content:
        kinds = {part.get("type") if isinstance(part, Mapping) else None for part in content}
        if kinds == {"text"} and all(isinstance(part.get("text"), str) for part in content):
            return "".join(part["text"] for part in content)
    raise RequestError(
        "continue_final_message continues text: the last message's content has to be text, or text parts."
    )
