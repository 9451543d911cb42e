"""The same as in a decoding step (see batch_result_processor_accept_grammar_tokens), for the token after a prefill."""

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.scheduler_components.batch_result_processor:"
    "SchedulerBatchResultProcessor._apply_prefill_grammar",
    signature="(self, *, req, next_token_id, already_advanced=False)",
    why="a text that the grammar doesn't allow would be answered as a result",
    until="SGLang answers an error where a grammar refuses a token",
    checked={"0.5.17": "3d9a09dc6d54"},
)


def around(original, processor, *, req, next_token_id, already_advanced=False):
    from sgl_proxythinker.guards.grammars import accept_or_abort

    def accept(token):
        original(processor, req=req, next_token_id=token, already_advanced=already_advanced)

    if already_advanced:
        accept(next_token_id)
    else:
        accept_or_abort(req, [next_token_id], accept)
