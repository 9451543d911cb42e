"""End a request that the scheduler can't prepare with an error, alone and on every rank, and not the process.

Stock: puts a request into the waiting queue or into the grammars'; what its values break, there or later in a batch,
       ends the scheduler, and the server with it. The pixels of its pictures stay until it ends.
Ours:  tries first what preparing a batch of it alone would do, then the same; either failing answers this request
       with 400. Ranks that disagree end the server. Ranks whose models don't read the request free its pixels.
       `min_new_tokens` holds back every id that ends an answer, and not the tokenizer's and the request's alone.
Why a hook: every request enters a scheduler here, in the same order on every rank.
"""

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.scheduler:Scheduler.handle_generate_request",
    signature="(self, recv_req)",
    why="one request of a few bytes would end the server for everybody",
    until="SGLang ends a request whose parameters can't be prepared, and not the scheduler",
    checked={"0.5.17": "dc1d21fbaa2d"},
)


def around(original, scheduler, recv_req):
    from sgl_proxythinker.guards.bad_requests import receive
    from sgl_proxythinker.guards.every_end import hold_back_every_end
    from sgl_proxythinker.server import proxy_config
    from sgl_proxythinker.step.unread_pictures import drop_unread_pictures

    def handle():
        model_config = scheduler.model_config
        hold_back_every_end(recv_req.sampling_params, model_config.hf_eos_token_id, model_config.vocab_size)
        if proxy_config(scheduler.server_args) is not None:
            drop_unread_pictures(recv_req, scheduler.tp_worker.ensemble.models)
        original(scheduler, recv_req)

    receive(scheduler, recv_req, handle)
