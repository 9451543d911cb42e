"""Keep a row of logits from being masked whole: no token can be drawn of it, and sampling ends the scheduler.

Stock: fills a row of the mask with what xgrammar allows next, which may be nothing.
Ours:  the same; where nothing is allowed the end is, and it is refused as one that the grammar doesn't accept.
Why a hook: the mask is complete here, and still on the host.
"""

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.constrained.xgrammar_backend:XGrammarGrammar.fill_vocab_mask",
    signature="(self, vocab_mask, idx)",
    why="a grammar with a dead end would end the server for everybody",
    until="SGLang ends a request whose grammar allows no token",
    checked={"0.5.17": "df27a6836c85"},
)


def around(original, grammar, vocab_mask, idx):
    from sgl_proxythinker.guards.grammars import leave_an_end

    original(grammar, vocab_mask, idx)
    leave_an_end(grammar, vocab_mask, idx)
