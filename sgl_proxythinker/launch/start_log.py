"""A log that is read: of a start it fits a screen, and lines of SGLang's that say the same many times are a few."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from sgl_proxythinker.log_rate import AtMost

_HOOKS = "sglang.srt.plugins.hook_registry"
_APPLIED = "Applied %d hook(s) to"
# Where SGLang imports the files of all models, and tells of each that can't be, in a hundred lines without FFmpeg.
_IMPORTS = ("sglang.srt.managers.multimodal_processor", "sglang.srt.models.registry")
_NOT_IMPORTED = "Ignore import error when loading"
# Where SGLang tells of each request that is refused what its client is told, or that has failed its traceback.
_REFUSALS = (
    "sglang.srt.entrypoints.http_server",
    "sglang.srt.entrypoints.openai.serving_base",
    "sglang.srt.entrypoints.anthropic.serving",
)


class _Shortened(logging.Filter):
    """The first line of what can't be imported: other models' files mostly, and the served one's if it fails later."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not _shows_all() and str(record.msg).startswith(_NOT_IMPORTED):
            begin, _, why = record.getMessage().partition(": ")
            reason = next((line.strip() for line in why.splitlines() if line.strip()), "")
            record.msg, record.args = f"{begin}: {reason.removesuffix(' Likely causes:')}", None
        return True


class _WithoutHooks(logging.Filter):
    """Not a line for each of our hooks: whether all are in place is proven."""

    def filter(self, record: logging.LogRecord) -> bool:
        told = record.args
        if not str(record.msg).startswith(_APPLIED) or not isinstance(told, tuple) or len(told) < 2:
            return True
        return _shows_all() or str(told[1]) not in _targets


def _shows_all() -> bool:
    """SGLang sets the level after hooks are installed, so it is asked for each line."""
    return logging.getLogger().isEnabledFor(logging.DEBUG)


_SHORTENED, _WITHOUT_HOOKS, _AT_MOST = _Shortened(), _WithoutHooks(), AtMost(keeps_lines=False)
_targets: set[str] = set()


def keep_short(targets: Iterable[str]) -> None:
    """Shorten what SGLang logs in this process, unless its level is DEBUG. Any number of times.

    `logging` keeps a filter that is added again once.

    Args:
        targets: the definitions that are hooked from now on.
    """
    _targets.update(targets)
    logging.getLogger(_HOOKS).addFilter(_WITHOUT_HOOKS)
    for name in _IMPORTS:
        logging.getLogger(name).addFilter(_SHORTENED)
    for name in _REFUSALS:
        logging.getLogger(name).addFilter(_AT_MOST)
