"""Let penalties of a request that was retracted count what it had written.

Stock: penalizers are made anew with each prefill and begin at nothing, so a request that was retracted and begins again
       is penalized for what it writes from then on alone, and its `min_new_tokens` are counted from there.
Ours:  what a request had written is counted first. Not under speculation, whose penalties are ours.
Why a hook: they are made inside of a prefill's preparation, and read at once.
"""

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.sampling.penaltylib.orchestrator:BatchedPenalizerOrchestrator.__init__",
    signature="(self, vocab_size, batch, penalizers)",
    why="the tokens of an answer would depend on whether memory was short while it was written",
    until="SGLang's penalizers read the output_ids of a request that begins again",
    checked={"0.5.17": "6bd6de731dfe"},
)


def around(original, orchestrator, vocab_size, batch, penalizers):
    original(orchestrator, vocab_size, batch, penalizers)
    if orchestrator.is_required and any(req.output_ids for req in batch.reqs) and batch.spec_algorithm.is_none():
        from sgl_proxythinker.guards.written_before import count_written

        count_written(orchestrator, batch.reqs, comes_again=batch.enable_overlap)
