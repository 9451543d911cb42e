"""Let the text of a token that is a part of a character know the token's bytes.

Stock: turns the ids of logprobs into texts; a part of a character becomes U+FFFD.
Ours:  the same texts, of which those remember the token's bytes (see to_openai_style_logprobs).
Why a hook: further on nothing knows ids and tokenizer any more.
"""

from sgl_proxythinker.guards.partial_tokens import remember_bytes
from sgl_proxythinker.server import is_ours
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.tokenizer_manager:TokenizerManager.detokenize_logprob_tokens",
    signature="(self, token_logprobs_val, token_logprobs_idx, decode_to_text)",
    why="the bytes of a token's logprobs would not be those of its text",
    until="SGLang's logprobs carry the bytes of tokens that are a part of a character",
    checked={"0.5.17": "0a30e7db997b"},
)


def around(original, manager, token_logprobs_val, token_logprobs_idx, decode_to_text):
    tokens = original(manager, token_logprobs_val, token_logprobs_idx, decode_to_text)
    return remember_bytes(manager.tokenizer, tokens) if decode_to_text and is_ours(manager.server_args) else tokens
