"""Keep the logprobs of tokens that show no text yet for the next chunk of the stream.

Stock: sends a step's logprobs with its text; a step without text, as of a token that is a part of a character, sends
       none, and its logprobs are lost.
Ours:  the same, with those logprobs before the next text's.
Why a hook: it is where a step's logprobs and text meet.
"""

from sgl_proxythinker.server import is_ours
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.entrypoints.openai.serving_chat:OpenAIServingChat._generate_stream_content",
    signature="(self, content, index, request, stream_offsets, reasoning_parser_dict, parser_dict, "
    "has_tool_calls, choice_logprobs, finish_reason_type, continuous_usage_stats, prompt_tokens, "
    "reasoning_tokens, completion_tokens)",
    why="the bytes of a stream's logprobs would not be those of its text",
    until="SGLang's streams send the logprobs of every token",
    checked={"0.5.17": "9be4f672712d"},
)


async def around(original, serving, **step):
    manager = serving.tokenizer_manager
    if is_ours(manager.server_args) and step["choice_logprobs"] is not None:
        index, content, kept = step["index"], step["content"], step["stream_offsets"]
        shown = 0 if manager.server_args.incremental_streaming_output else kept.get(index, 0)
        # `stream_offsets` lives as long as the stream; upstream's keys are the indices alone.
        waiting = kept.pop(("proxy_logprobs", index), [])
        tokens = waiting + step["choice_logprobs"]["content"]
        step["choice_logprobs"] = {**step["choice_logprobs"], "content": tokens}
        if len(content["text"]) == shown and not (serving.reasoning_parser or serving.tool_call_parser):
            kept["proxy_logprobs", index] = tokens
            step["choice_logprobs"] = None
    async for chunk in original(serving, **step):
        yield chunk
