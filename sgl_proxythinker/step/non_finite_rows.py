"""A checkpoint whose logits are NaN or infinite ends its own requests with an error and nobody else's."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import torch

from sgl_proxythinker.step.host_copy import HostCopy

logger = logging.getLogger(__name__)

_ATTRIBUTE = "proxy_verdict"

MESSAGE = (
    "the guided distribution of this request became NaN or infinite, so no token can be drawn from it: a checkpoint is "
    "damaged, or overflows in the server's dtype. With proxy_alpha 0 the base model alone answers."
)


def attach_verdict(logits_output: Any, sound: torch.Tensor) -> None:
    """Start the verdict's way to the host, without waiting for it.

    Args:
        logits_output: SGLang's `LogitsProcessorOutput` of this step; it carries the verdict to `abort_broken_rows`.
        sound: [B] bool on the model's device, True where the fused row was finite.
    """
    setattr(logits_output, _ATTRIBUTE, HostCopy.start(sound))


def abort_broken_rows(batch: Any, result: Any, report: bool) -> None:
    """Tell the requests of broken rows to finish with an error, before SGLang takes their token.

    Args:
        batch: the `ScheduleBatch` of the step, its requests in row order.
        result: the step's result; its copies to the host may still be under way.
        report: log and count them; every rank aborts the same requests, one of them reports.
    """
    verdict: HostCopy | None = getattr(getattr(result, "logits_output", None), _ATTRIBUTE, None)
    if verdict is None or all(rows := verdict.read()):
        return
    from sglang.srt.managers.schedule_batch import FINISH_ABORT

    for req, is_sound in zip(batch.reqs, rows, strict=True):
        if is_sound or req.finished() or req.is_retracted:
            continue
        # Its keys and values may be NaN: what of it is not in the tree yet stays out.
        req.skip_radix_cache_insert = True
        if req.to_finish:
            continue
        # Of an earlier chunk too, which isn't sampled from: it takes effect when the prompt's last chunk has been read.
        req.to_finish = FINISH_ABORT(MESSAGE, HTTPStatus.INTERNAL_SERVER_ERROR, "InternalServerError")
        if report:
            logger.error("request %s: %s", req.rid, MESSAGE)
            _count()


_counter = None


def _count() -> None:
    """Count in SGLang's /metrics (served with --enable-metrics); created late, once its directory is set."""
    global _counter
    if _counter is None:
        from prometheus_client import Counter

        _counter = Counter("sglang:proxy_broken_rows_total", "Requests ended because their fused row was not finite.")
    _counter.inc()
