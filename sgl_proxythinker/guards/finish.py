"""How a request ends in the scheduler, where SGLang's own way may stall or end the process. Alike on every rank."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from sgl_proxythinker.guards.one_sentence import one_sentence
from sgl_proxythinker.guards.stop_regex import StopRegexError, StopRegexes
from sgl_proxythinker.log_rate import sparing_logger
from sgl_proxythinker.upstream.scheduling import FINISH_ABORT, FINISHED_MATCHED_REGEX

logger = sparing_logger(__name__)

_ATTRIBUTE = "proxy_stop_regexes"


def update_with_stop_regex(original: Callable, req: Any, new_accepted_len: int, patterns: list[str]) -> None:
    """SGLang's decision without its regular expressions, then ours.

    Args:
        original: `Req.update_finish_state`.
        req: SGLang's `Req`, its new tokens at the end of `output_ids`.
        new_accepted_len: how many they are.
        patterns: `stop_regex`, checked by `check_stop_regex`.
    """
    params = req.sampling_params
    regexes = getattr(req, _ATTRIBUTE, None)
    if regexes is None:
        regexes = StopRegexes(patterns)
        setattr(req, _ATTRIBUTE, regexes)
        # What is decoded for stop strings after each token is as long as they are, not as long as a pattern's match.
        params.stop_regex_max_len = 0
    params.stop_regex_strs = []
    try:
        original(req, new_accepted_len)
    finally:
        params.stop_regex_strs = patterns
    if req.finished():
        return
    before = regexes.tokens_read
    matched = regexes.read(req.tokenizer, list(req.output_ids[before:]))
    if matched is not None:
        pattern, count = matched
        req.finished_reason = FINISHED_MATCHED_REGEX(matched=pattern)
        req.finished_len = before + count


def abort(req: Any, error: Exception) -> None:
    """End a request by an error; its KV is released as that of any request that ends.

    Args:
        req: SGLang's `Req`, in the loop over a step's results.
        error: what its own values have raised.
    """
    if isinstance(error, StopRegexError):
        reason = (
            f"stop_regex {str(error)[:80]!r} has too many ways to match this text: simplify it, or let its repeats "
            "be fewer."
        )
        status, kind = HTTPStatus.BAD_REQUEST, "BadRequestError"
    else:
        reason = f"this request's end could not be decided: {one_sentence(error)}."
        status, kind = HTTPStatus.INTERNAL_SERVER_ERROR, "InternalServerError"
    logger.error("request %s: %s", req.rid, reason, exc_info=None if status is HTTPStatus.BAD_REQUEST else error)
    req.to_finish = None
    req.finished_reason = FINISH_ABORT(reason, status, kind)
    if req.finished_len is None:
        req.finished_len = len(req.output_ids)
