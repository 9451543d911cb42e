"""End the request that a client means by an id that it chose, and no other one.

Stock: ends the request with an id, or all of them.
Ours:  the same; an id that comes by /abort_request is a client's, and becomes the one inside.
Why a hook: ids are made unique inside, and upstream's own callers use those.
"""

from sgl_proxythinker.requests.call import current
from sgl_proxythinker.requests.request_ids import meant_by
from sgl_proxythinker.server import is_ours
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.tokenizer_manager:TokenizerManager.abort_request",
    signature="(self, rid='', abort_all=False)",
    why="a client could not end a request by the id that it chose",
    until="SGLang compares ids as a whole, and its clean-up ends only what it began",
    checked={"0.5.17": "f30e70b19882"},
)


def around(original, manager, rid="", abort_all=False):
    call = current()
    if abort_all or not is_ours(manager.server_args) or call is None or call.path != "/abort_request":
        return original(manager, rid, abort_all)
    for inside in meant_by(rid, manager.rid_to_state.keys() | manager.logical_rid_to_child_rids.keys()):
        original(manager, inside)
