"""Send nothing of a request that has no token yet, so that the logprobs of its first token are sent with it.

Stock: takes what a request has new into the next message to the tokenizer. A request that is retracted right after its
       prompt was read, before that step's result is processed, has no token then; it is sent all the same, its first
       logprob is noted as sent, and missing from the answer.
Ours:  the same for requests that have a token or have ended.
Why a hook: the note is taken in the middle of it.
"""

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.scheduler_components.output_streamer:_GenerationStreamAccumulator.accept",
    signature="(self, *, req)",
    why="answers of retracted requests would lack the logprob of their first token",
    until="SGLang counts what it has sent by what there was to send",
    checked={"0.5.17": "f618b277a2fe"},
)


def around(original, accumulator, *, req):
    if req.output_ids or req.finished():
        original(accumulator, req=req)
