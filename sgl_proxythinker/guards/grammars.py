"""Grammars: one that admits no text is refused when it is compiled, and an end that it doesn't accept is an error.

Both of SGLang's grammar libraries are read here: llguidance (its default on CPUs) and xgrammar (on GPUs).
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import torch

from sgl_proxythinker.guards.chain_end import end_after
from sgl_proxythinker.guards.endless_schema import never_ends
from sgl_proxythinker.guards.one_sentence import compiler_reason
from sgl_proxythinker.log_rate import sparing_logger
from sgl_proxythinker.upstream.scheduling import FINISH_ABORT, InvalidGrammarObject

logger = sparing_logger(__name__)

NO_TEXT = "it admits no text at all, or refers to itself without consuming a character"


def compile_or_refuse(kind: str, source: str, compile_: Callable[[], Any]) -> Any:
    """A compiled grammar, or SGLang's `InvalidGrammarObject` with one sentence, which its request is answered with.

    Args:
        kind: "json", "regex", "ebnf" or "structural_tag".
        source: the grammar's text.
        compile_: SGLang's own compilation.
    """
    try:
        if kind == "json" and never_ends(source):
            return InvalidGrammarObject(NO_TEXT)
        grammar = compile_()
        if grammar is None:
            return grammar
        reason = grammar.error_message if isinstance(grammar, InvalidGrammarObject) else _why_dead(kind, grammar)
    except Exception as error:  # what the libraries raise has no common type
        reason = error
    return grammar if reason is None else InvalidGrammarObject(compiler_reason(reason))


def accept_or_abort(req: Any, token_ids: list[int], accept: Callable[[int], list[int] | None]) -> list[int]:
    """Let a request's grammar read its new tokens; what it doesn't accept ends the request with an error.

    A text may be cut by its request's own wish: `max_new_tokens`, a stop string, `stop_regex`, a stop token.

    Args:
        req: SGLang's `Req`.
        token_ids: the tokens of a step, several of a chain; the model's end may be among them.
        accept: SGLang's own, of one token, which it returns where it is kept; it sets `to_finish` when the grammar
            refuses the token.

    Returns:
        The tokens that are kept: those up to the one that ends the grammar.
    """
    if req.sampling_params.max_new_tokens == 0:
        # It reads its prompt only, as what SGLang sends ahead of several samples does. In a batch of such requests
        # SGLang's worker draws no tokens and hands out 0 for each, which no grammar was asked about. With drafts such a
        # batch is one because `SpeculativeWorker._prefill` marks it. Without, SGLang marks it, but under overlap a
        # batch with grammars is sampled late, tokens wanted or not, and a grammar accepts what its mask let through.
        return token_ids
    asked, req.to_finish = req.to_finish, None
    kept: list[int] = []
    refused, good_tokens = False, 0
    for token in token_ids:
        good_tokens = len(kept)
        refused = _refuses_end(req.grammar, token)
        kept += accept(token) or []
        refused |= req.to_finish is not None
        if refused or req.grammar.is_terminated():
            break
    req.to_finish = asked
    if refused and not _is_own_stop(req, token):
        reason = (
            "the grammar of this request admits no end of the text here and no continuation that can be found: it may "
            "admit no text at all, or be too complex."
        )
        finish = FINISH_ABORT(reason, HTTPStatus.BAD_REQUEST, "BadRequestError")
        logger.error("request %s: %s", req.rid, reason)
        if req.finished():
            req.finished_reason = finish
        elif asked is None:
            end_after(req, good_tokens, finish)
    return kept


def leave_an_end(grammar: Any, mask: torch.Tensor, row: int) -> None:
    """Allow the end in a row of the mask that allows nothing, of which no token could be drawn; it is refused later.

    Args:
        grammar: xgrammar's, as SGLang wraps it.
        mask: [B, ceil(V / 32)] int32 on the host, a bit for each token.
        row: the request's.
    """
    if not mask[row].any():
        for token in _ends(grammar):
            mask[row, token // 32] |= _bit(token)


def _why_dead(kind: str, grammar: Any) -> str | None:
    grammar = inner_grammar(grammar)
    if grammar is None or not (_is_llguidance(grammar) or hasattr(grammar, "matcher")):
        return None
    probe = grammar.copy()
    width = probe.llguidance_tokenizer.vocab_size if _is_llguidance(probe) else probe.vocab_size
    mask = torch.full((1, (width + 31) // 32), -1, dtype=torch.int32)
    if _is_llguidance(probe):
        probe.fill_vocab_mask(mask, 0)
    else:  # without what our hook adds
        probe.matcher.fill_next_token_bitmask(mask, 0)
    if _is_llguidance(probe) and probe.ll_matcher.is_error():
        error = probe.ll_matcher.get_error()
        return NO_TEXT if "NoExtension" in error else error
    ends = [token for token in _ends(probe) if mask[0, token // 32] & _bit(token)]
    for token in ends:
        mask[0, token // 32] &= ~_bit(token)
    if mask.any():
        return None
    accepts = probe.ll_matcher.is_accepting() if _is_llguidance(probe) else bool(ends)
    return None if accepts and kind != "json" else NO_TEXT


def _refuses_end(grammar: Any, token: int) -> bool:
    """Whether this token is the model's end, at a place where the grammar has none."""
    if hasattr(grammar, "_is_thinking") and grammar._is_thinking():
        return token in _ends(inner_grammar(grammar))
    grammar = inner_grammar(grammar)
    # llguidance forces the end after an error, and SGLang takes it for an accepted one. xgrammar refuses by itself.
    return _is_llguidance(grammar) and token in grammar.eos_tokens and not grammar.ll_matcher.is_accepting()


def _is_own_stop(req: Any, token: int) -> bool:
    own = req.sampling_params.stop_token_ids
    return bool(own) and token in own and token not in _ends(inner_grammar(req.grammar))


def inner_grammar(grammar: Any) -> Any:
    """The grammar itself, where SGLang has put one of a reasoning model's thoughts around it."""
    return grammar.grammar if hasattr(grammar, "think_end_ids") else grammar


def _is_llguidance(grammar: Any) -> bool:
    return hasattr(grammar, "ll_matcher")


def _ends(grammar: Any) -> list[int]:
    if grammar is None:
        return []
    return list(grammar.eos_tokens if _is_llguidance(grammar) else grammar.matcher.stop_token_ids)


def _bit(token: int) -> int:
    bit = token % 32
    return -(1 << 31) if bit == 31 else 1 << bit  # of an int32
