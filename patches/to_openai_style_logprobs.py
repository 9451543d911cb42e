"""Write tokens that are a part of a character with their bytes, in chat and completions.

Stock: takes a token's bytes from its text, which is U+FFFD for all such tokens.
Ours:  the same, of texts that say the bytes (`bytes:\\xe2\\x80`, as OpenAI does) and are encoded as them.
Why a hook: both routes' logprobs pass here, whole and streamed.
"""

from sgl_proxythinker.guards.partial_tokens import name_bytes
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.entrypoints.openai.utils:to_openai_style_logprobs",
    signature="(input_token_logprobs=None, output_token_logprobs=None, "
    "input_top_logprobs=None, output_top_logprobs=None)",
    why="the bytes of a token's logprobs would not be those of its text",
    until="SGLang's logprobs carry the bytes of tokens that are a part of a character",
    checked={"0.5.17": "7d82d72a45d8"},
)


def around(
    original, input_token_logprobs=None, output_token_logprobs=None, input_top_logprobs=None, output_top_logprobs=None
):
    return original(
        input_token_logprobs=name_bytes(input_token_logprobs),
        output_token_logprobs=name_bytes(output_token_logprobs),
        input_top_logprobs=_each(input_top_logprobs),
        output_top_logprobs=_each(output_top_logprobs),
    )


def _each(places):
    return places and [name_bytes(place) for place in places]
