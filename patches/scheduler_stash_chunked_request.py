"""Let a chunk of a prompt into the radix tree when it is known that its row was finite: one chunk later.

Stock: when a prompt's next chunk is planned, what the last one wrote goes into the tree. Under overlap its results
       are not yet on the host then.
Ours:  the newest chunk stays with its request, as it does without a tree; those before it go in, unless one was broken.
       With the prompt's last chunk all that is sound goes in. Requests that share a sound beginning would be harmed
       too: a later token's NaN, at a weight of zero, is NaN for each token that was read with it.
Why a hook: it is the one place where a chunk enters the tree before its prompt has been read.
"""

import torch

from sgl_proxythinker.server import is_ours, proxy_config
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.scheduler:Scheduler.stash_chunked_request",
    signature="(self, req)",
    why="keys and values that are NaN would be found in the tree by other requests",
    until="SGLang keeps chunks with NaN out of its tree",
    checked={"0.5.17": "a7a19805b833"},
)


def around(original, scheduler, req):
    if not is_ours(scheduler.server_args) or proxy_config(scheduler.server_args) is None:
        return original(scheduler, req)
    newest = req.extend_range
    req.set_extend_range(newest.start, newest.start)
    original(scheduler, req)
    req.extend_range = newest
    # The next chunk goes on where this ends; SGLang leaves it as it was where nothing is inserted.
    slots = scheduler.req_to_token_pool.req_to_token[req.req_pool_idx, : newest.end]
    req.prefix_indices = slots.to(torch.int64, copy=True)
