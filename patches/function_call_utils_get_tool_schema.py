"""The schema of one call admits an object with a name and arguments, and nothing else.

Stock: has `properties` without a type, which null, numbers and lists fulfil too.
Ours:  the same with `"type": "object"` and no further names.
Why a hook: SGLang builds the schema of an answer from it. It is installed only in the main process of a server that
       asked for us.
"""

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.function_call.utils:_get_tool_schema",
    signature="(tool)",
    why="the grammar of a named choice would admit answers that are no calls",
    until="the schema has a type",
    checked={"0.5.17": "698b3a555f22"},
)


def around(original, tool):
    return {**original(tool), "type": "object", "additionalProperties": False}
