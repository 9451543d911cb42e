"""Give each token of a streamed chunk its own top logprobs.

Stock: a stream's chunk with several tokens has the first one's top logprobs for all of them.
Ours:  each its own; the lists that come in are those of the chunk's tokens, in streams as in whole answers.
Why a hook: the choice is made inside, by an argument that streams leave at its default.
"""

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.entrypoints.openai.serving_chat:OpenAIServingChat._process_logprobs_tokens",
    signature="(self, logprobs, use_token_index=False)",
    why="a client that reads slowly would be sent the top logprobs of other tokens",
    until="SGLang's streams index top logprobs by token",
    checked={"0.5.17": "8ad448bdbe5d"},
)


def around(original, serving, logprobs, use_token_index=False):
    return original(serving, logprobs, use_token_index=True)
