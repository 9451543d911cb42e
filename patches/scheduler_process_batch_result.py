"""End requests whose fused row was NaN or infinite with an error, and hand over the traces of those that ask.

Stock: takes a step's tokens to the requests. It dies where one row asks for the logprobs of ids that it names
       (`token_ids_logprob`, which choices of programs are scored with) and another row of the batch doesn't: for that
       one its sampler leaves a list where a tensor is read.
Ours:  the same, after requests whose row was broken are told to finish with an error, traces are put where upstream
       looks for what goes with a token, and rows that named no ids have an empty tensor of them.
Why a hook: the first two are computed on the GPU, and this is where the step's other results reach the host.
"""

import torch

from sgl_proxythinker.metrics.steps import step_metrics
from sgl_proxythinker.step.non_finite_rows import abort_broken_rows
from sgl_proxythinker.step.trace import publish_trace
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.scheduler:Scheduler.process_batch_result",
    signature="(self, batch, result)",
    why="a request whose distribution is NaN would return tokens drawn from nothing, traces would be lost, and the "
    "choices of a program would end the server for everybody else",
    until="SGLang ends a request whose logits are NaN with an error, copies customized_info to the host, and reads "
    "token_ids_logprob in batches where not every request asks for it",
    checked={"0.5.17": "30c6b4fc8c2b"},
)


def around(original, scheduler, batch, result):
    broken = abort_broken_rows(batch, result, report=scheduler.ps.tp_rank == 0)
    if broken and scheduler.ps.tp_rank == 0 and (metrics := step_metrics(scheduler)) is not None:
        metrics.broken(broken)
    publish_trace(batch, result)
    _fill_rows_without_named_ids(result)
    return original(scheduler, batch, result)


def _fill_rows_without_named_ids(result):
    logits_output = getattr(result, "logits_output", None)
    if rows := getattr(logits_output, "next_token_token_ids_logprobs_val", None):
        logits_output.next_token_token_ids_logprobs_val = [
            row if torch.is_tensor(row) else torch.tensor(row) for row in rows
        ]
