"""End requests whose fused row was NaN or infinite with an error, and hand over the traces of those that ask.

Stock: takes a step's tokens to the requests.
Ours:  the same, after requests whose row was broken are told to finish with an error, and traces are put where upstream
       looks for what goes with a token.
Why a hook: both are computed on the GPU, and this is where the step's other results reach the host.
"""

from sgl_proxythinker.broken_rows import abort_broken_rows
from sgl_proxythinker.patches._upstream import Upstream
from sgl_proxythinker.trace import publish_trace

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.scheduler:Scheduler.process_batch_result",
    signature="(self, batch, result)",
    why="a request whose distribution is NaN would return tokens drawn from nothing, and traces would be lost",
    until="SGLang ends a request whose logits are NaN with an error, and copies customized_info to the host",
    checked={"0.5.17": "30c6b4fc8c2b"},
)


def around(original, scheduler, batch, result):
    abort_broken_rows(batch, result, report=scheduler.ps.tp_rank == 0)
    publish_trace(batch, result)
    return original(scheduler, batch, result)
