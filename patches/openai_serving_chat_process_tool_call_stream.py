"""In a stream, read calls that were forced by a JSON schema as what they are: a JSON array.

Stock: reads them in the form of the model's own parser where that has structural tags.
Ours:  puts SGLang's parser of JSON arrays in its place, since `get_structure_constraint` forces one.
Why a hook: the parser is chosen here. Answers that are no streams are read as a JSON array anyway.
"""

from sgl_proxythinker.server import is_ours
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.entrypoints.openai.serving_chat:OpenAIServingChat._process_tool_call_stream",
    signature="(self, index, delta, parser_dict, content, request, has_tool_calls, continuous_usage_stats=False)",
    why="a forced call would come as text in a stream",
    until="structural tags force the tool that was asked for, under all grammar engines",
    checked={"0.5.17": "e28138c27e0c"},
)


def around(original, chat, index, delta, parser_dict, content, request, *args, **kwargs):
    is_forced = request.tool_choice not in ("auto", "none")
    if is_ours(chat.tokenizer_manager.server_args) and is_forced and index not in parser_dict:
        from sgl_proxythinker.upstream.tools import JsonArrayParser

        parser_dict[index] = JsonArrayParser()
    return original(chat, index, delta, parser_dict, content, request, *args, **kwargs)
