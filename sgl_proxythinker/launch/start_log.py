"""A log of a start that fits a screen: lines of SGLang's that say the same many times are said once, and shortly."""

from __future__ import annotations

import logging
from collections.abc import Iterable

_HOOKS = "sglang.srt.plugins.hook_registry"
_APPLIED = "Applied %d hook(s) to"
# Where SGLang imports the files of all models, and tells of each that can't be, in a hundred lines without FFmpeg.
_IMPORTS = ("sglang.srt.managers.multimodal_processor", "sglang.srt.models.registry")
_NOT_IMPORTED = "Ignore import error when loading"


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


_SHORTENED, _WITHOUT_HOOKS = _Shortened(), _WithoutHooks()
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
