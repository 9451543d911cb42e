"""Let a cycle wait for the last one's tokens where they decide what it may draw.

Stock: under speculation a step waits for the results of the last one if a request has a grammar.
Ours:  also if a request has penalties or a minimum of tokens, which are worked out from all that it has written.
Why a hook: the scheduler asks no algorithm of its registry.
"""

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.scheduler:Scheduler.is_disable_overlap_for_batch",
    signature="(self, batch, last_batch)",
    why="penalties of a speculating server would miss the tokens of the last cycle",
    until="SGLang's penalties count what a verify accepts",
    checked={"0.5.17": "6e80805a2e8c"},
)


def around(original, scheduler, batch, last_batch):
    from sgl_proxythinker.server import proxy_config
    from sgl_proxythinker.speculation.penalties import is_penalized

    if original(scheduler, batch, last_batch):
        return True
    config = proxy_config(scheduler.server_args)
    if config is None or not config.drafts or not batch or not batch.forward_mode.is_decode():
        return False
    return bool(scheduler.result_queue) and any(map(is_penalized, batch.reqs))
