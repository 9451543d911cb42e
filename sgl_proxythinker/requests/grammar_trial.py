"""Try a grammar in a process of its own before a scheduler compiles it: some take for ever, and some crash a library.

`allOf` of a dozen patterns, or `multipleOf` a large number, is a few bytes for llguidance's compiler to work on for
hours, in a thread that nobody can end; a crash would end the scheduler. One verdict is found here, in the main process,
so it is the same on every rank.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from typing import Any
from weakref import WeakKeyDictionary

from starlette.exceptions import HTTPException

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.plugin import request_limits
from sgl_proxythinker.requests.call import current
from sgl_proxythinker.requests.grammar_process import OUT_OF_MEMORY, schemas_of
from sgl_proxythinker.requests.unread_keywords import check_keywords

logger = logging.getLogger(__name__)

KINDS = ("json_schema", "regex", "ebnf", "structural_tag")

_AT_ONCE = 2  # processes
_LEAST_WAIT_S = 25.0  # for grammars of others that are tried
_REMEMBERED = 4096
_CRASHES = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE, OUT_OF_MEMORY)


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
        self._wait_s = max(_LEAST_WAIT_S, 4 * seconds)
        self._threads = ThreadPoolExecutor(_AT_ONCE, "grammar-trial")
        self._own = threading.local()  # each thread has a process
        self._trials: OrderedDict[bytes, Future[str | None]] = OrderedDict()

    def start(self) -> None:
        """Start the processes: the libraries take seconds to load."""
        for _ in range(_AT_ONCE):
            self._threads.submit(self._try, "regex", "a")

    async def why_not(self, kind: str, source: str) -> str | None:
        """Why a grammar can't be compiled within its bounds; None where it can, or is wrong in a way that ends soon.

        Args:
            kind: one of `KINDS`.

        Raises:
            HTTPException: 503, it is not known yet: other grammars are waiting, or no process can be started.
        """
        key = hashlib.blake2b(f"{kind}:{source}".encode("utf-8", "surrogatepass")).digest()
        if key not in self._trials:
            self._trials[key] = self._threads.submit(self._try, kind, source)
            while len(self._trials) > _REMEMBERED:
                self._trials.popitem(last=False)
        self._trials.move_to_end(key)
        trial = self._trials[key]
        try:
            # A client that goes, or waits no longer, does not end a trial that others wait for.
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(trial)), self._wait_s)
        except TimeoutError:
            raise HTTPException(
                HTTPStatus.SERVICE_UNAVAILABLE, "the server is busy with other grammars: try again later."
            ) from None
        except OSError as error:
            self._trials.pop(key, None)
            logger.error("no process can try a grammar: %s", error)
            raise HTTPException(
                HTTPStatus.SERVICE_UNAVAILABLE, "the server can't try grammars at the moment: try again later."
            ) from None

    def _try(self, kind: str, source: str) -> str | None:
        for _ in range(2):  # a process may have been ended by others, before it read this grammar or while it did
            ended = self._ask(kind, source)
            if ended is None:
                return None
            if ended == -signal.SIGPROF:
                return (
                    f"it takes more than {self._seconds:g} s to compile, which this server doesn't give "
                    "(--proxy-max-grammar-s raises it)"
                )
            if ended in _CRASHES:
                logger.warning("a %s ended the process that tried it, with exit code %s", kind, ended)
                return "it can't be compiled: the server's grammar library runs out of memory or crashes on it"
        raise ChildProcessError(f"the process ends with exit code {ended}")

    def _ask(self, kind: str, source: str) -> int | None:
        """None where the compilation ended, whatever it found; else the exit code of the process."""
        process = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps([kind, source]).encode() + b"\n")
            process.stdin.flush()
            if process.stdout.readline():
                return None
        self._own.process = None
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        return process.wait()


_of_managers: WeakKeyDictionary[Any, GrammarTrial | None] = WeakKeyDictionary()


def trial_of(manager: Any) -> GrammarTrial | None:
    """The trial of a server's grammars; None where it takes no grammars, or uses another library.

    Args:
        manager: SGLang's `TokenizerManager`.
    """
    if manager not in _of_managers:
        server_args = manager.server_args
        library = server_args.grammar_backend
        seconds = request_limits(server_args).max_grammar_s
        _of_managers[manager] = GrammarTrial(library, seconds) if library in ("llguidance", "xgrammar") else None
    return _of_managers[manager]


async def try_grammars(params: Any, trial: GrammarTrial | None) -> None:
    """Refuse a request whose grammar can't be compiled within its bounds, or would not be kept to.

    Args:
        params: `sampling_params`, checked; of one prompt, a list of them, or None.

    Raises:
        RequestError: names the field and the reason.
    """
    if trial is None:
        return
    call = current()
    for kind, source in _grammars(params if isinstance(params, list) else [params]):
        name = kind if call is None else call.names.get(kind, kind)
        if trial.library == "xgrammar":
            for schema in _schemas(kind, source):
                check_keywords(schema, name)
        if reason := await trial.why_not(kind, source):
            raise RequestError(f"{name} can't be used: {reason}.")


def _grammars(params: Iterable[Mapping[str, Any] | None]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((kind, one[kind]) for one in params if one for kind in KINDS if one.get(kind)))


def _schemas(kind: str, source: str) -> list[Any]:
    """The JSON schemas of a grammar."""
    if kind == "json_schema":
        return [json.loads(source)]
    if kind == "structural_tag" and "structures" in json.loads(source):
        return schemas_of(source)
    return []
