"""Grammars along a chain: what they allow at each position, and drafts that keep to it.

All of it is done on copies. A draft that was never drawn may lead a grammar into an error, of which it does not
recover.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch

from sgl_proxythinker.guards.grammars import inner_grammar
from sgl_proxythinker.upstream.speculation import GrammarMask

_IDS_OF_A_NUMBER = 32  # a bit of the mask for each


def chain_mask(reqs: Sequence[Any], tokens: torch.Tensor, vocab_size: int) -> GrammarMask | None:
    """The mask of every position of B chains, as SGLang's sampler applies it; None where no request has a grammar.

    Rows after a token that the grammar doesn't allow, after its end and after an error are left open: no token of
    theirs counts, or the grammar refuses it when it is read in earnest.

    Args:
        reqs: SGLang's `Req` of each of B requests; grammars have read its last token.
        tokens: [B, n] int64, the last token and the drafts.
        vocab_size: of the logits' columns.
    """
    each, chains = tokens.shape[1], tokens.tolist()
    grammars = _copies(reqs)
    if not grammars:
        return None
    any_grammar = next(iter(grammars.values()))
    mask = any_grammar.allocate_vocab_mask(vocab_size=vocab_size, batch_size=tokens.numel(), device="cpu")
    for request, grammar in grammars.items():
        for offset, token in enumerate(chains[request]):
            row = request * each + offset
            # The first of them it has read.
            if offset and not (_allows(mask[row - 1], token) and _reads(grammar, token)):
                break
            if grammar.is_terminated() or not _fills(grammar, mask, row):
                break
    return GrammarMask(any_grammar, mask.to(tokens.device))


class DraftMasks:
    """Lets drafts keep to the grammars of their requests: others would be wrong in every case.

    Args:
        reqs: SGLang's `Req` of each of B requests.
        vocab_size: columns of the base's logits, for which grammars are compiled.
    """

    def __init__(self, reqs: Sequence[Any], vocab_size: int):
        self._size, self._width = len(reqs), vocab_size
        self._grammars = _copies(reqs)

    def masked(self, logits: torch.Tensor) -> torch.Tensor:
        """[B, ids] the logits, with -inf where a grammar allows no token; the same tensor where there is none."""
        if not self._grammars:
            return logits
        any_grammar = next(iter(self._grammars.values()))
        # As wide as the grammars' vocabulary, or xgrammar doesn't fill it; applied no wider than the logits.
        mask = any_grammar.allocate_vocab_mask(vocab_size=self._width, batch_size=self._size, device="cpu")
        self._keep(lambda row, grammar: not grammar.is_terminated() and _fills(grammar, mask, row))
        logits = logits.clone()
        read = mask[:, : -(-logits.shape[1] // _IDS_OF_A_NUMBER)].contiguous()
        any_grammar.apply_vocab_mask(logits, read.to(logits.device))
        return logits

    def read(self, drafts: torch.Tensor) -> None:
        """Let the grammars read a draft of each request. `drafts`: [B] int64."""
        self._keep(lambda row, grammar: _reads(grammar, int(drafts[row])))

    def _keep(self, goes_on: Any) -> None:
        self._grammars = {row: grammar for row, grammar in self._grammars.items() if goes_on(row, grammar)}


def _copies(reqs: Sequence[Any]) -> dict[int, Any]:
    """Each request's grammar where it stands, by its place, unless it has ended."""
    copies = {}
    for place, req in enumerate(reqs):
        if req.grammar is not None and not req.grammar.is_terminated():
            with contextlib.suppress(ValueError):  # one in an error can't be copied; its request ends
                copies[place] = _copy(req.grammar)
    return copies


def _copy(grammar: Any) -> Any:
    """llguidance's copy stands where the grammar does; xgrammar's begins anew, but for a matcher that is forked."""
    copy = grammar.copy()
    if (matcher := getattr(inner_grammar(grammar), "matcher", None)) is not None:
        inner_grammar(copy).matcher = matcher.fork()
    return copy


def _allows(row: torch.Tensor, token: int) -> bool:
    place, bit = divmod(token, _IDS_OF_A_NUMBER)
    return place < len(row) and bool(int(row[place]) >> bit & 1)


def _reads(grammar: Any, token: int) -> bool:
    try:
        grammar.accept_token(token)
    except ValueError:
        return False
    return True


def _fills(grammar: Any, mask: torch.Tensor, row: int) -> bool:
    try:
        grammar.fill_vocab_mask(mask, row)
    except ValueError:
        return False
    # Our hook keeps the error of llguidance's mask, which allows the end only then.
    matcher = getattr(inner_grammar(grammar), "ll_matcher", None)
    return matcher is None or not matcher.is_error()
