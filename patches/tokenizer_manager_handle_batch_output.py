"""Give a request whose output can't be handed out an error, where it would end the loop that all answers pass.

Stock: builds each request's answer of a batch and wakes who waits for it; an exception ends the loop.
Ours:  the same; the request that failed is answered with an error, and the batch goes on after it.
Why a hook: the loop has no other place between two requests.
"""

from sgl_proxythinker.guards.lone_failures import hand_out_or_fail
from sgl_proxythinker.server import is_ours
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.tokenizer_manager:TokenizerManager._handle_batch_output",
    signature="(self, recv_obj)",
    why="one request's answer could leave all the others waiting for ever",
    until="SGLang isolates a request whose answer can't be built",
    checked={"0.5.17": "4adfb1cf333c"},
)


async def around(original, manager, recv_obj):
    if is_ours(manager.server_args):
        await hand_out_or_fail(original, manager, recv_obj)
    else:
        await original(manager, recv_obj)
