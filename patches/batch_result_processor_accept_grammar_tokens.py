"""End a request with an error when its grammar doesn't accept the token, the model's end included.

Stock: a refused token aborts the request without a status, which is answered with 200; the end after an error of the
       grammar's is taken for a normal one.
Ours:  the same work, after which both are errors of 400 with a sentence.
Why a hook: it is where a decoding step's token meets the grammar; the next one is a prefill's.
"""

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.scheduler_components.batch_result_processor:"
    "SchedulerBatchResultProcessor._accept_grammar_tokens",
    signature="(self, req, tokens)",
    why="a text that the grammar doesn't allow would be answered as a result",
    until="SGLang answers an error where a grammar refuses a token",
    checked={"0.5.17": "549c2c2e2e3c"},
)


def around(original, processor, req, tokens):
    from sgl_proxythinker.guards.grammars import accept_or_abort

    token_ids = [tokens] if isinstance(tokens, int) else tokens
    return accept_or_abort(req, token_ids, lambda token: original(processor, req, token))
