"""End requests whose fused row was NaN or infinite with an error; the others go on.

Stock: takes a step's tokens to the requests.
Ours:  the same, after requests whose row was broken are told to finish with an error.
Why a hook: the verdict is reached on the GPU, and this is where the step's other results reach the host.
"""

from sgl_proxythinker.broken_rows import abort_broken_rows
from sgl_proxythinker.patches._upstream import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.scheduler:Scheduler.process_batch_result",
    signature="(self, batch, result)",
    why="a request whose distribution is NaN would return tokens drawn from nothing",
    until="SGLang ends a request whose logits are NaN with an error",
    checked={"0.5.17": "30c6b4fc8c2b"},
)


def around(original, scheduler, batch, result):
    abort_broken_rows(batch, result, report=scheduler.ps.tp_rank == 0)
    return original(scheduler, batch, result)
