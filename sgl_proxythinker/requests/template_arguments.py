"""What a chat template can obey: tools, calls, `chat_template_kwargs`, `reasoning_effort`; the rest is a 400."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from sgl_proxythinker.errors import RequestError

# Parameters of `apply_chat_template` itself. SGLang sets some, and a client's own `chat_template` would be a program
# that runs in the server.
RESERVED = frozenset(
    """
    conversation messages tools chat_template add_generation_prompt continue_final_message tokenize padding truncation
    max_length return_tensors return_dict return_assistant_tokens_mask tokenizer_kwargs
    """.split()
)
# Read by SGLang itself, where it turns ids into text.
_OF_SGLANG = frozenset(["spaces_between_special_tokens"])
# Names under which models are asked to think. SGLang sets these two when `reasoning_effort` is sent.
_THINKING = frozenset(["thinking", "enable_thinking"])

_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "sierra_uniform",
        "description": "Victor.",
        "parameters": {"type": "object", "properties": {}},
    },
}

_USER: dict[str, Any] = {"role": "user", "content": "Alpha"}

Render = Callable[[list[dict], list[dict] | None], str]


def renders_tools(render: Render) -> bool:
    """Whether a chat template writes tools into the prompt, by rendering a chat with and without one.

    Args:
        render: (messages, tools) -> text.
    """
    try:
        return render([_USER], [_TOOL]) != render([_USER], None)
    except Exception:  # templates raise what they like; one that can't render them has no place for them
        return False


def renders_calls(render: Render) -> bool:
    """Whether a chat template writes the calls of an assistant's earlier turn into the prompt.

    Args:
        render: as for `renders_tools`.
    """
    name = _TOOL["function"]["name"]
    call = {"id": "charlie09", "type": "function", "function": {"name": name, "arguments": {}}}  # some want 9 letters
    rendered = []
    for content in (None, "", "Bravo"):
        turn: dict[str, Any] = {"role": "assistant", "content": content, "tool_calls": [call]}
        result: dict[str, Any] = {"role": "tool", "tool_call_id": call["id"], "content": "Delta"}
        for messages in ([_USER, turn], [_USER, turn, result]):
            try:
                rendered.append(name in render(messages, None))
            except Exception:  # as above
                continue
    # A template that can render none of them says so to the request.
    return any(rendered) or not rendered


@lru_cache(maxsize=8)
def words_of(template: str) -> frozenset[str]:
    """The names that a chat template may read: every word in its statements and expressions."""
    code = re.findall(r"{[{%](.*?)[%}]}", template, re.DOTALL)
    return frozenset(re.findall(r"[A-Za-z_]\w*", " ".join(code)))


def check_template_arguments(body: Mapping[str, Any], template: str) -> None:
    """Refuse `chat_template_kwargs` and `reasoning_effort` that the template doesn't read.

    Args:
        body: the JSON object of a chat.
        template: the source of the chat template.

    Raises:
        RequestError: HTTP 400; the message names what would be lost.
    """
    words = words_of(template)
    reasoning = body.get("reasoning")
    effort = body.get("reasoning_effort") or (isinstance(reasoning, Mapping) and (reasoning.get("effort")))
    if effort and effort != "none" and not words & {"reasoning_effort", *_THINKING}:
        raise RequestError(
            "reasoning_effort can't be used here: the model's chat template doesn't read it; say in a message how much "
            "thought the answer needs."
        )
    given = body.get("chat_template_kwargs") or {}
    if not isinstance(given, Mapping):
        raise RequestError("chat_template_kwargs is no object: send names and values that the chat template reads.")
    own = _THINKING | _OF_SGLANG
    # Whether thoughts are told from an answer depends on whether they were asked for, with ids too.
    lost = [str(name)[:60] for name, value in given.items() if value is not None and name not in own]
    if body.get("input_ids") and (lost or (effort and effort != "none")):
        name = f"chat_template_kwargs.{lost[0]}" if lost else "reasoning_effort"
        raise RequestError(
            f"{name} and input_ids are both set: the ids are the whole prompt, so no chat template reads it; leave one "
            "of them out."
        )
    for name, value in given.items():
        shown = str(name)[:60]
        if name in RESERVED:
            raise RequestError(f"chat_template_kwargs has {shown}: it is set by the server; leave it out.")
        # Who asks a model that never does so not to think gets what was asked for.
        asks_nothing = value is None or (name in _THINKING and (value is False or effort))
        if name not in words and name not in _OF_SGLANG and not asks_nothing:
            raise RequestError(
                f"chat_template_kwargs has {shown}, which the model's chat template doesn't read: it would be lost; "
                "leave it out."
            )
