"""End a request whose own values a scheduler can't work with, on every rank or on none, and leave the others alone."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import torch

from sgl_proxythinker.guards.one_sentence import one_sentence
from sgl_proxythinker.guards.trial import try_alone
from sgl_proxythinker.log_rate import sparing_logger
from sgl_proxythinker.upstream.scheduling import FINISH_ABORT, AbortReq

logger = sparing_logger(__name__)


def receive(scheduler: Any, request: Any, handle: Callable[[], None]) -> None:
    """Take a request into the scheduler, or answer it with an error.

    Args:
        scheduler: SGLang's, of one rank.
        request: a `TokenizedGenerateReqInput`.
        handle: puts it into the scheduler's queues.

    Raises:
        RuntimeError: it failed on some of the ranks only, whose batches would no longer be the same.
    """
    failed: Exception | None = None
    try:
        try_alone(request, scheduler.tokenizer, scheduler.model_config.vocab_size)
        handle()
    except Exception as error:  # whatever the request's values make Python, torch or Rust raise
        failed = error
    if not _is_same_everywhere(failed is not None, scheduler.dp_tp_cpu_group):
        raise RuntimeError(
            f"request {request.rid} can't be taken on some of the ranks and can on others ({failed!r} on this one), "
            "whose batches would no longer be the same"
        ) from failed
    if failed is None:
        return
    _take_back(scheduler, request.rid)
    reason = f"this request can't be run: {one_sentence(failed)}."
    if scheduler.ps.tp_rank == 0:
        logger.error("request %s: %s", request.rid, reason, exc_info=failed)
    # Only the first rank has a socket to send it by.
    finish = FINISH_ABORT(reason, HTTPStatus.BAD_REQUEST, "BadRequestError").to_json()
    scheduler.ipc_channels.send_to_tokenizer.send_output(AbortReq(rid=request.rid, finished_reason=finish), request)


def _take_back(scheduler: Any, rid: str) -> None:
    """Remove what a handler that failed may have left; a request in a queue has no KV yet."""
    scheduler.waiting_queue = [req for req in scheduler.waiting_queue if req.rid != rid]
    manager = scheduler.grammar_manager
    manager.grammar_queue = [req for req in manager.grammar_queue if req.rid != rid]


def _is_same_everywhere(failed: bool, group: Any) -> bool:
    if torch.distributed.get_world_size(group) == 1:
        return True
    extremes = torch.tensor([int(failed), -int(failed)])
    torch.distributed.all_reduce(extremes, torch.distributed.ReduceOp.MAX, group)
    return extremes[0].item() == -extremes[1].item()
