"""A log of a start that fits a screen: lines of SGLang's that say the same many times are said once, and shortly."""

from __future__ import annotations

import logging

_HOOKS = "sglang.srt.plugins.hook_registry"
_APPLIED = "Applied %d hook(s) to"
# Where SGLang imports the files of all models, and tells of each that can't be, in a hundred lines without FFmpeg.
_IMPORTS = ("sglang.srt.managers.multimodal_processor", "sglang.srt.models.registry")
_NOT_IMPORTED = "Ignore import error when loading"


class _Shortened(logging.Filter):
    """The first line of what can't be imported: other models' files mostly, and the served one's if it fails later."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno > logging.DEBUG and str(record.msg).startswith(_NOT_IMPORTED):
            record.msg = record.getMessage().split("\n", 1)[0].removesuffix(" Likely causes:")
            record.args = None
        return True


class _WithoutHooks(logging.Filter):
    """Not a line for each hook: whether all are in place is proven, and said in one."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_APPLIED)


_SHORTENED, _WITHOUT_HOOKS = _Shortened(), _WithoutHooks()


def keep_short() -> None:
    """Shorten what SGLang logs in this process. Any number of times; a server at DEBUG shows all of it.

    `logging` keeps a filter that is added again once.
    """
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        return
    logging.getLogger(_HOOKS).addFilter(_WITHOUT_HOOKS)
    for name in _IMPORTS:
        logging.getLogger(name).addFilter(_SHORTENED)
