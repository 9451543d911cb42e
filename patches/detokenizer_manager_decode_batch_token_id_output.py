"""Give a request whose tokens can't be turned into text an error, where it would end the detokenizer.

Stock: decodes the new tokens of a batch; an exception ends the process, and every request waits for ever.
Ours:  the same; when it fails, each request alone, and the ones that fail are finished with an error.
Why a hook: it is where a batch's texts are made, with each request's own wishes.
"""

from sgl_proxythinker.guards.lone_failures import decode_or_fail
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.detokenizer_manager:DetokenizerManager._decode_batch_token_id_output",
    signature="(self, recv_obj)",
    why="one request that the tokenizer refuses would leave all the others waiting for ever",
    until="SGLang isolates a request that can't be decoded",
    checked={"0.5.17": "8fe8ad0f85ab"},
)


def around(original, manager, recv_obj):
    return decode_or_fail(original, manager, recv_obj)
