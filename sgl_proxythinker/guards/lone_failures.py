"""One request's failure in the processes between scheduler and client ends that request, and not the loop of all."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Any

from sgl_proxythinker.log_rate import sparing_logger

logger = sparing_logger(__name__, keeps_lines=True)

KIND = "ProxyLoneFailure"


def failure(what: str, rid: str) -> dict[str, Any]:
    """A `finish_reason` that becomes HTTP 500."""
    return {
        "type": "abort",
        "message": f"{what}; the server's log says more of request {rid}.",
        "status_code": HTTPStatus.INTERNAL_SERVER_ERROR,
        "err_type": KIND,
    }


def decode_or_fail(original: Callable[[Any, Any], list[str]], manager: Any, outputs: Any) -> list[str]:
    """Turn a batch's new tokens into text; a request whose tokens can't be gets none, and is finished with an error.

    Args:
        original: `DetokenizerManager._decode_batch_token_id_output`.
        manager: the `DetokenizerManager`; how far each request has been decoded is put back before a second try.
        outputs: a `BatchTokenIDOutput`; `finished_reasons` of failed requests are set.
    """
    before = {rid: _snapshot(manager.decode_status.get(rid)) for rid in outputs.rids}
    try:
        return original(manager, outputs)
    except Exception:
        logger.exception("proxythinker: a batch of %d requests can't be decoded; each is tried alone", len(before))
    texts = []
    for row, rid in enumerate(outputs.rids):
        _restore(manager.decode_status, rid, before[rid])
        try:
            texts += original(manager, _one_row(outputs, row))
        except Exception:
            logger.exception("request %s: its tokens can't be decoded", rid)
            manager.decode_status.pop(rid, None)
            outputs.finished_reasons[row] = failure("the answer's tokens can't be turned into text", rid)
            texts.append("")
    return texts


async def hand_out_or_fail(original: Callable[[Any, Any], Awaitable[None]], manager: Any, outputs: Any) -> None:
    """Hand a batch's outputs to the requests that wait for them; one that fails there is answered with an error.

    Args:
        original: `TokenizerManager._handle_batch_output`.
        manager: the `TokenizerManager`.
        outputs: what came from the detokenizer.
    """
    rids, states, start = outputs.rids, [manager.rid_to_state.get(rid) for rid in outputs.rids], 0
    for rid, reason in zip(rids, outputs.finished_reasons, strict=True):
        if reason and reason.get("err_type") == KIND:
            manager.abort_request(rid)  # the scheduler goes on with it otherwise
    while True:
        outputs.rids = progress = _Rids(rids, start)
        try:
            return await original(manager, outputs)
        except Exception:
            if progress.at < start:
                raise  # before the first request
            rid = rids[progress.at]
            logger.exception("request %s: its output can't be handed out", rid)
            for state in states[start : progress.at + 1]:
                if state is not None and state.out_list:
                    state.event.set()  # those before it have their output
            _fail(manager, rid)
            start = progress.at + 1


class _Rids(list):
    """A batch's request ids, which remembers the one that is being worked on; those done already are not shown."""

    def __init__(self, rids: list[str], start: int):
        super().__init__(rids)
        self._start = start
        self.at = -1

    def __iter__(self) -> Iterator[str]:
        from sglang.srt.constants import HEALTH_CHECK_RID_PREFIX

        for self.at, rid in enumerate(super().__iter__()):
            yield rid if self.at >= self._start else HEALTH_CHECK_RID_PREFIX  # upstream skips a gone health check


def _fail(manager: Any, rid: str) -> None:
    from sglang.srt.managers.io_struct import AbortReq

    if rid in manager.rid_to_state:
        manager.abort_request(rid)
        reason = failure("the answer can't be handed out", rid)
        manager._handle_abort_req(AbortReq(rid=rid, finished_reason=reason))


def _snapshot(status: Any) -> Any:
    if status is None:
        return None
    return copy.copy(status), len(status.decode_ids), list(status.decoded_text_chunks)


def _restore(statuses: Any, rid: str, before: Any) -> None:
    if before is None:
        statuses.pop(rid, None)
        return
    status, length, chunks = before
    del status.decode_ids[length:]
    status.decoded_text_chunks = chunks
    if rid in statuses:
        statuses.pop(rid)
    statuses[rid] = status


def _one_row(outputs: Any, row: int) -> Any:
    one = copy.copy(outputs)
    for field in (
        "rids", "decoded_texts", "decode_ids", "read_offsets", "finished_reasons", "no_stop_trim",
        "skip_special_tokens", "spaces_between_special_tokens",
    ):  # fmt: skip
        setattr(one, field, [getattr(outputs, field)[row]])
    return one
