"""A log that stays readable when every request fails: lines of one kind, or tracebacks, are told so many times."""

from __future__ import annotations

import logging
from typing import NamedTuple

MOST = 10  # lines of one kind in a window
WINDOW_S = 60.0
_MOST_KINDS = 256  # that are remembered; kinds are places in the code, so there are fewer


class _Kind(NamedTuple):
    """The lines of one place in the code, about one place that failed."""

    text: str  # before its arguments are filled in; of a line without any, which may be a client's, the place itself
    failed: str | None  # the type of the exception, and where it was raised


class _Window(NamedTuple):
    start_s: float
    lines: int
    left_out: int


class AtMost(logging.Filter):
    """At most `MOST` lines of one kind in `WINDOW_S` seconds; the last one says so, the next one what was left out.

    With DEBUG as the level of the root logger nothing is left out.

    Args:
        keeps_lines: leave out tracebacks only, since somebody was told to look for the line.
    """

    def __init__(self, keeps_lines: bool):
        super().__init__()
        self._keeps_lines = keeps_lines
        self._windows: dict[_Kind, _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if logging.getLogger().isEnabledFor(logging.DEBUG) or (self._keeps_lines and not record.exc_info):
            return True
        kind = _kind_of(record)
        window = self._windows.get(kind) or _Window(record.created, 0, 0)
        left_out = 0
        if record.created - window.start_s >= WINDOW_S:
            left_out, window = window.left_out, _Window(record.created, 0, 0)
        if len(self._windows) >= _MOST_KINDS:
            self._windows.clear()
        is_told = window.lines < MOST
        self._windows[kind] = window._replace(lines=window.lines + is_told, left_out=window.left_out + (not is_told))
        what = "tracebacks" if self._keeps_lines else "lines"
        if left_out:
            record.msg = f"{record.msg} [{left_out:,} {what} like it were left out before this one]"
        if window.lines == MOST - 1:
            record.msg = f"{record.msg} [the {MOST}th in {WINDOW_S:g} s: {what} like it are left out until then]"
        if not is_told and self._keeps_lines:
            record.exc_info = record.exc_text = None
        return is_told or self._keeps_lines


def sparing_logger(name: str, keeps_lines: bool = False) -> logging.Logger:
    """The logger of a module that may have something to say of every request. `keeps_lines`: as for `AtMost`."""
    logger = logging.getLogger(name)
    logger.addFilter(AtMost(keeps_lines))
    return logger


def _kind_of(record: logging.LogRecord) -> _Kind:
    failed = None
    if record.exc_info and record.exc_info[0] is not None:
        exception, _, trace = record.exc_info
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = "" if trace is None else f" {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        failed = f"{exception.__name__}{place}"
    return _Kind(str(record.msg) if record.args else f"{record.pathname}:{record.lineno}", failed)
