"""A call that is asked for by `tool_choice` is forced by a JSON schema, whatever the model's own form of calls is.

Stock: for parsers of Qwen2.5's and other forms, a structural tag with all tools, and without their schemas unless they
       are strict: a named choice may call another tool with any JSON value, and under llguidance nothing is forced.
Ours:  the schema that SGLang has for parsers without structural tags: the named tool or one of all, as many calls as
       `parallel_tool_calls` allows. Without a choice, SGLang's.
Why a hook: the parser makes the constraint, and chats of all routes pass here. It is installed only in the main process
       of a server that asked for us.
"""

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.function_call.function_call_parser:FunctionCallParser.get_structure_constraint",
    signature="(self, tool_choice, parallel_tool_calls=True, thinking_mode=False)",
    why="a named or required choice might give no call, or a call of another tool",
    until="structural tags force the tool that was asked for, under all grammar engines",
    checked={"0.5.17": "601d2c970713"},
)


def around(original, parser, tool_choice, parallel_tool_calls=True, thinking_mode=False):
    if tool_choice not in ("auto", "none"):
        from sgl_proxythinker.upstream.tools import get_json_schema_constraint

        schema = get_json_schema_constraint(parser.tools, tool_choice, parallel_tool_calls=parallel_tool_calls)
        return "json_schema", schema
    return original(parser, tool_choice, parallel_tool_calls=parallel_tool_calls, thinking_mode=thinking_mode)
