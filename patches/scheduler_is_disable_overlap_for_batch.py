"""Process the results of the last batch before the next one is launched, where it would wait for them anyway.

Stock: under speculation a step waits for the results of the last one if a request has a grammar; with
       SGLANG_DISABLE_CONSECUTIVE_PREFILL_OVERLAP each prefill waits for those of the prefill before it.
Ours:  a prefill that embeds pictures for small models too waits for the prefill before it. To embed pictures is to
       wait for the device, and the kernels of three language models are more than a queue takes: the first tokens of
       the last batch would be sent when half of the next one is done.
Why a hook: the scheduler asks no algorithm of its registry, and the variable is for all prefills.
"""

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.scheduler:Scheduler.is_disable_overlap_for_batch",
    signature="(self, batch, last_batch)",
    why="first tokens would wait for the next prefill",
    until="SGLang sends what is ready before it embeds pictures",
    checked={"0.5.17": "6e80805a2e8c"},
)


def around(original, scheduler, batch, last_batch):
    from sgl_proxythinker.server import proxy_config

    if original(scheduler, batch, last_batch):
        return True
    if proxy_config(scheduler.server_args) is None or not batch or not last_batch or not scheduler.result_queue:
        return False
    are_prefills = batch.forward_mode.is_extend() and last_batch.forward_mode.is_extend()
    return are_prefills and _embeds_for_several(batch)


def _embeds_for_several(batch):
    """Whether tokens of a picture are among those that this prefill reads, for another model than the base too."""
    from sgl_proxythinker.guidance import readers_of

    return any(
        start < before + count and end >= before
        for req, before, count in zip(batch.reqs, batch.prefix_lens, batch.extend_lens, strict=True)
        if req.multimodal_inputs is not None and len(readers_of(req.extra_key)) > 1
        for item in req.multimodal_inputs.mm_items
        for start, end in item.offsets or ()
    )
