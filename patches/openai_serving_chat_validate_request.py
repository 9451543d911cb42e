"""Refuse what a chat asks for and would not get: tools, template arguments, a last turn to continue.

Stock: validates the schemas of tools and response formats.
Ours:  the same; then wishes that the chat template, the tool parser or the last message can't fulfil are its errors,
       and what is written in several ways is brought to the one that SGLang obeys: schemas of arguments admit objects
       only, the text parts of a message that is to be continued are one text.
Why a hook: chats of OpenAI's and Anthropic's routes and /tokenize pass here, and its error is a 400 on all of them.
"""

from functools import lru_cache

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.metrics.refusals import noted
from sgl_proxythinker.requests.last_turn import check_last_turn, text_of
from sgl_proxythinker.requests.template_arguments import check_template_arguments, renders_calls, renders_tools
from sgl_proxythinker.requests.tools import as_object, check_calls, check_tools
from sgl_proxythinker.server import is_ours
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.entrypoints.openai.serving_chat:OpenAIServingChat._validate_request",
    signature="(self, request)",
    why="tools that no template shows, unread template arguments and a message to continue would be lost in silence",
    until="SGLang refuses what it can't fulfil",
    checked={"0.5.17": "c1a06042341e"},
)

_FIELDS = {
    "tools", "tool_choice", "parallel_tool_calls", "response_format", "regex", "ebnf", "reasoning_effort",
    "chat_template_kwargs", "continue_final_message", "input_ids",
}  # fmt: skip

# Without those that mean something beside tools only, and always have a value.
_FIELDS_OF_TOOLS = _FIELDS - {"tool_choice", "parallel_tool_calls"}


def around(original, chat, request):
    if not is_ours(chat.tokenizer_manager.server_args):
        return original(chat, request)
    try:
        with noted():
            _check(chat, request)
    except RequestError as error:
        return str(error)
    return original(chat, request)


def _check(chat, request):
    if not _asks_for_something(request):
        return
    body = request.model_dump(include=_FIELDS)
    body["messages"] = [message.model_dump(include={"role", "tools", "tool_calls"}) for message in request.messages]
    last = request.messages[-1] if request.messages else None
    if last is not None and request.continue_final_message:
        body["messages"][-1]["content"] = last.model_dump(include={"content"})["content"]
    tokenizer = chat.tokenizer_manager.tokenizer
    # SGLang's own templates, which --chat-template names, read neither tools nor arguments.
    template = "" if chat.template_manager.chat_template_name is not None else _template_of(tokenizer)
    check_tools(body, _renders(renders_tools, tokenizer, template), chat.tool_call_parser)
    check_calls(body["messages"], _renders(renders_calls, tokenizer, template))
    check_template_arguments(body, template)
    check_last_turn(body)
    for tool in request.tools or []:
        if tool.function.parameters is not None:
            tool.function.parameters = as_object(tool.function.parameters)
    if request.continue_final_message:
        last.content = text_of(body["messages"][-1]["content"])


def _asks_for_something(request):
    """Whether anything is set that is checked here: most chats have a text and no more."""
    return (
        any(getattr(request, field) for field in _FIELDS_OF_TOOLS)
        or request.tool_choice not in (None, "auto", "none")
        or any(getattr(message, "tools", None) or getattr(message, "tool_calls", None) for message in request.messages)
    )


def _template_of(tokenizer):
    template = getattr(tokenizer, "chat_template", None) or ""
    return template if isinstance(template, str) else "\n".join(template.values())


@lru_cache(maxsize=8)
def _renders(what, tokenizer, template):
    def render(messages, tools):
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, tools=tools)

    return bool(template) and what(render)
