"""A checkpoint whose logits are NaN or infinite ends its own requests with an error and nobody else's."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import torch

from sgl_proxythinker.guards.chain_end import end_after
from sgl_proxythinker.log_rate import sparing_logger
from sgl_proxythinker.step.host_copy import HostCopy

logger = sparing_logger(__name__)

_ATTRIBUTE = "proxy_verdict"

MESSAGE = (
    "the guided distribution of this request became NaN or infinite, so no token can be drawn from it: a checkpoint is "
    "damaged, or overflows in the server's dtype. With proxy_alpha 0 the base model alone answers."
)


class _Verdict(NamedTuple):
    """Which rows of a step can be sampled from, on its way to the host."""

    owner: Sequence[int]  # [N]: the request of each row
    sound: HostCopy  # [N] bool


def attach_verdict(logits_output: Any, sound: torch.Tensor, owner: Sequence[int]) -> None:
    """Start the verdict's way to the host, without waiting for it.

    Args:
        logits_output: SGLang's `LogitsProcessorOutput` of this step; it carries the verdict to `abort_broken_rows`.
        sound: [N] bool on the model's device, True where the fused row was finite.
        owner: [N] the request of each row.
    """
    setattr(logits_output, _ATTRIBUTE, _Verdict(owner, HostCopy.start(sound)))


def abort_broken_rows(batch: Any, result: Any, report: bool) -> int:
    """Tell the requests of broken rows to finish with an error, before SGLang takes their token.

    Args:
        batch: the `ScheduleBatch` of the step. A request is broken if one of its rows is.
        result: the step's result; its copies to the host may still be under way.
        report: log them; every rank aborts the same requests, one of them reports.

    Returns:
        How many were told now, of those that were not to end anyway.
    """
    verdict: _Verdict | None = getattr(getattr(result, "logits_output", None), _ATTRIBUTE, None)
    if verdict is None or all(rows := verdict.sound.read()):
        return 0
    # Of each broken request, how many of its rows come before the first that is.
    broken: dict[int, int] = {}
    for row, (request, is_sound) in enumerate(zip(verdict.owner, rows, strict=True)):
        if not is_sound:
            broken.setdefault(request, row - verdict.owner.index(request))
    from sglang.srt.managers.schedule_batch import FINISH_ABORT

    told = 0
    for request, good_tokens in broken.items():
        req = batch.reqs[request]
        if req.finished() or req.is_retracted:
            continue
        # Its keys and values may be NaN: what of it is not in the tree yet stays out.
        req.skip_radix_cache_insert = True
        if req.to_finish:
            continue
        # Of an earlier chunk too, which isn't sampled from: it takes effect when the prompt's last chunk has been read.
        end_after(req, good_tokens, FINISH_ABORT(MESSAGE, HTTPStatus.INTERNAL_SERVER_ERROR, "InternalServerError"))
        told += 1
        if report:
            logger.error("request %s: %s", req.rid, MESSAGE)
    return told
