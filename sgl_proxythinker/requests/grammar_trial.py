"""Try a grammar in a process of its own before a scheduler compiles it: some take for ever, and some crash a library.

`allOf` of a dozen patterns, or `multipleOf` a large number, is a few bytes for llguidance's compiler to work on for
hours, in a thread that nobody can end; a crash would end the scheduler. One verdict is found here, in the main process,
so it is the same on every rank.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.plugin import request_limits
from sgl_proxythinker.requests.call import current
from sgl_proxythinker.requests.unread_keywords import check_keywords

logger = logging.getLogger(__name__)

KINDS = ("json_schema", "regex", "ebnf", "structural_tag")

_AT_ONCE = 2  # processes
_WAIT_S = 25.0  # for grammars of others that are tried
_REMEMBERED = 4096


class GrammarTrial:
    """Processes that compile grammars, and what became of each.

    Args:
        library: "llguidance" or "xgrammar".
        seconds: of processor time for one grammar.
    """

    def __init__(self, library: str, seconds: float):
        self.library = library
        self._command = [sys.executable, "-m", f"{__package__}.grammar_process", library, str(seconds)]
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(_AT_ONCE, "grammar-trial")
        self._own = threading.local()  # each thread has a process
        self._reasons: OrderedDict[bytes, str | None] = OrderedDict()

    def start(self) -> None:
        """Start the processes: the libraries take seconds to load."""
        for _ in range(_AT_ONCE):
            self._threads.submit(self._try, "regex", "a")

    async def why_not(self, kind: str, source: str) -> str | None:
        """Why a grammar can't be compiled within its bounds; None where it can, or is wrong in a way that ends soon.

        Args:
            kind: one of `KINDS`.

        Raises:
            HTTPException: 503, too many other grammars are waiting.
        """
        key = hashlib.blake2b(f"{kind}:{source}".encode("utf-8", "surrogatepass")).digest()
        if key not in self._reasons:
            trial = asyncio.get_running_loop().run_in_executor(self._threads, self._try, kind, source)
            try:
                self._reasons[key] = await asyncio.wait_for(trial, _WAIT_S)
            except TimeoutError:
                raise HTTPException(
                    HTTPStatus.SERVICE_UNAVAILABLE, "the server is busy with other grammars: try again later."
                ) from None
            while len(self._reasons) > _REMEMBERED:
                self._reasons.popitem(last=False)
        return self._reasons.get(key)

    def _try(self, kind: str, source: str) -> str | None:
        process = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        try:
            process.stdin.write(json.dumps([kind, source]).encode() + b"\n")
            process.stdin.flush()
            if process.stdout.readline():
                return None
        except BrokenPipeError:
            pass
        self._own.process = None
        process.stdin.close()
        process.stdout.close()
        if process.wait() == -signal.SIGPROF:
            return (
                f"it takes more than {self._seconds:g} s to compile, which this server doesn't give "
                "(--proxy-max-grammar-s raises it)"
            )
        logger.warning("a %s ended the process that tried it, with exit code %s", kind, process.returncode)
        return "it can't be compiled: the server's grammar library runs out of memory or crashes on it"


@lru_cache(maxsize=1)
def trial_of(manager: Any) -> GrammarTrial | None:
    """The trial of a server's grammars; None where it takes no grammars, or uses another library.

    Args:
        manager: SGLang's `TokenizerManager`.
    """
    server_args = manager.server_args
    if server_args.grammar_backend not in ("llguidance", "xgrammar"):
        return None
    return GrammarTrial(server_args.grammar_backend, request_limits(server_args).max_grammar_s)


async def try_grammars(params: Mapping[str, Any] | list[Mapping[str, Any]], trial: GrammarTrial | None) -> None:
    """Refuse a request whose grammar can't be compiled within its bounds, or would not be kept to.

    Args:
        params: `sampling_params`, checked; of one prompt, or a list of them.

    Raises:
        RequestError: names the field and the reason.
    """
    if trial is None:
        return
    call = current()
    for kind, source in _grammars(params if isinstance(params, list) else [params]):
        name = kind if call is None else call.names.get(kind, kind)
        if trial.library == "xgrammar" and kind == "json_schema":
            check_keywords(source, name)
        if reason := await trial.why_not(kind, source):
            raise RequestError(f"{name} can't be used: {reason}.")


def _grammars(params: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((kind, one[kind]) for one in params for kind in KINDS if one.get(kind)))
