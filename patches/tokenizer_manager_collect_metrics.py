"""Lose a metric where counting it fails, and not the answer.

Stock: counts a request's tokens and times under its labels; a label that the metrics refuse is an exception.
Ours:  the same; a failure is logged.
Why a hook: it follows a request's answer, inside of the loop of all answers.
"""

from sgl_proxythinker.log_rate import sparing_logger
from sgl_proxythinker.server import is_ours
from sgl_proxythinker.upstream.record import Upstream

logger = sparing_logger(__name__)

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.tokenizer_manager:TokenizerManager.collect_metrics",
    signature="(self, state, recv_obj, i)",
    why="a label of one request could leave all the others waiting for ever",
    until="SGLang keeps its metrics out of the way of its answers",
    checked={"0.5.17": "55a8f44d5521"},
)


def around(original, manager, state, recv_obj, i):
    try:
        original(manager, state, recv_obj, i)
    except Exception:
        if not is_ours(manager.server_args):
            raise
        logger.exception(
            "request %s: it can't be counted in the metrics, its answer is not touched: see to its labels",
            recv_obj.rids[i],
        )
