"""Where a request ends to which a step has brought several tokens: as if they had come one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_GOOD_TOKENS = "proxy_good_tokens"


def end_after(req: Any, good_tokens: int, finish: Any) -> None:
    """Let a request end with an error, unless one of the tokens before it ends it first.

    Args:
        req: SGLang's `Req`.
        good_tokens: how many tokens of its step come before the one that the error is of.
        finish: SGLang's reason.
    """
    req.to_finish = finish
    setattr(req, _GOOD_TOKENS, good_tokens)


def update_token_by_token(update: Callable[[], None], req: Any, new_accepted_len: int) -> None:
    """Decide after each token of a chain, as it would have been decided had they come one by one.

    SGLang looks at the whole chain: for the number of tokens first, then for stop strings, then for ends. A chain with
    an end before its last token would be answered with what follows the end.

    Args:
        update: decides after the last token of `output_ids`.
        req: SGLang's `Req`, its new tokens at the end of `output_ids`. Its grammar has read all of them. What it is to
            finish with comes after those that are good.
        new_accepted_len: how many they are.
    """
    tokens = req.output_ids[-new_accepted_len:]
    del req.output_ids[-new_accepted_len:]
    grammar, req.grammar = req.grammar, None
    finish, req.to_finish = req.to_finish, None
    good_tokens = vars(req).pop(_GOOD_TOKENS, 0) if finish else new_accepted_len
    read = 0
    try:
        for read, token in enumerate(tokens, start=1):
            req.output_ids.append(token)
            if read > good_tokens:
                req.to_finish = finish
            if read == new_accepted_len:
                # It ends with its last token, or has not ended.
                req.grammar = grammar
            update()
            if req.finished():
                break
        else:
            if finish:
                # The error is of a token that was not kept.
                req.to_finish = finish
                update()
    except Exception:
        # It ends with the token whose decision has failed.
        req.finished_len = len(req.output_ids)
        raise
    finally:
        req.grammar = grammar
        _keep_what_follows(req, tokens[read:])


def _keep_what_follows(req: Any, tokens: list[int]) -> None:
    """The tokens of a chain after an end stay with the request, as SGLang has it, and are not sent.

    Its KV is released by its tokens: slots of those that it no longer had would be lost. SGLang has counted all of them
    as thoughts where it was still thinking.
    """
    if req.finished() and req.finished_len is None:
        req.finished_len = len(req.output_ids)
    if req.finished_len is not None:
        req.reasoning_tokens = min(req.reasoning_tokens, req.finished_len)
    req.output_ids.extend(tokens)
