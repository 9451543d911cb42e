"""Let a grammar that has become an error end its own request, where it would end the scheduler.

Stock: fills a row of the mask; after an error of llguidance the row allows the end only, and the error is raised.
Ours:  the same row, without the raise: the end is drawn, and refused as one that the grammar doesn't accept.
Why a hook: behind a reasoning parser rows are filled one by one, inside of a step of the whole batch.
"""

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.constrained.llguidance_backend:GuidanceGrammar.fill_vocab_mask",
    signature="(self, vocab_mask, idx)",
    why="one request's grammar would end the server for everybody",
    until="SGLang isolates a request whose grammar fails",
    checked={"0.5.17": "233f4dd10ce0"},
)


def around(original, grammar, vocab_mask, idx):
    try:
        original(grammar, vocab_mask, idx)
    except ValueError:
        if not grammar.ll_matcher.is_error():
            raise
