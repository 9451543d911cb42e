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
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from starlette.exceptions import HTTPException

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.log_rate import sparing_logger
from sgl_proxythinker.policy.schema_keywords import check_keywords
from sgl_proxythinker.requests.call import current
from sgl_proxythinker.requests.grammar_process import OUT_OF_MEMORY, schemas_of
from sgl_proxythinker.server import request_limits

logger = sparing_logger(__name__)

KINDS = ("json_schema", "regex", "ebnf", "structural_tag")

_AT_ONCE = 2  # processes
_LEAST_WAIT_S = 25.0  # for grammars of others that are tried
_REMEMBERED = 4096
_CRASHES = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE, OUT_OF_MEMORY)


class Verdict(NamedTuple):
    """What became of a grammar."""

    why_not: str | None  # it can't be compiled within its bounds; None: it can, or is wrong in a way that ends soon
    seconds: float  # of processor time


class GrammarTrial:
    """Processes that compile grammars, and what became of each.

    Args:
        library: "llguidance" or "xgrammar".
        seconds: of processor time for one grammar.
    """

    def __init__(self, library: str, seconds: float):
        self.library = library
        self._command = [sys.executable, "-m", f"{__package__}.grammar_process", library, str(seconds)]
        self.seconds = seconds
        self._wait_s = max(_LEAST_WAIT_S, 4 * seconds)
        self._threads = ThreadPoolExecutor(_AT_ONCE, "grammar-trial")
        self._own = threading.local()  # each thread has a process
        self._trials: OrderedDict[bytes, Future[Verdict]] = OrderedDict()

    def start(self) -> None:
        """Start the processes: the libraries take seconds to load."""
        for _ in range(_AT_ONCE):
            self._threads.submit(self._try, "regex", "a")

    async def verdict(self, kind: str, source: str) -> Verdict:
        """What became of a grammar when it was compiled.

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
            logger.error(
                "no process can try a grammar, so requests with one are answered with 503: %s. See to free memory, "
                "and to the number of processes that this user may start.",
                error,
            )
            raise HTTPException(
                HTTPStatus.SERVICE_UNAVAILABLE, "the server can't try grammars at the moment: try again later."
            ) from None

    def _try(self, kind: str, source: str) -> Verdict:
        for _ in range(2):  # a process may have been ended by others, before it read this grammar or while it did
            ended = self._ask(kind, source)
            if isinstance(ended, float):
                return Verdict(None, ended)
            if ended == -signal.SIGPROF:
                return Verdict(
                    f"it takes more than {self.seconds:g} s to compile, which this server doesn't give "
                    "(--proxy-max-grammar-s raises it)",
                    self.seconds,
                )
            if ended in _CRASHES:
                logger.warning(
                    "a %s ended the process that tried it, with exit code %s: its request is answered with 400, and "
                    "nothing has to be done",
                    kind, ended,
                )  # fmt: skip
                why_not = "it can't be compiled: the server's grammar library runs out of memory or crashes on it"
                return Verdict(why_not, self.seconds)
        raise ChildProcessError(f"the process ends with exit code {ended}")

    def _ask(self, kind: str, source: str) -> float | int:
        """Seconds of processor time where the compilation ended, whatever it found; else the process' exit code."""
        process: Any = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps([kind, source]).encode() + b"\n")
            process.stdin.flush()
            if line := process.stdout.readline():
                return float(line.split()[1])
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
    """Refuse a request whose grammars can't be compiled within their bounds, one or all, or would not be kept to.

    Args:
        params: `sampling_params`, checked; of one prompt, a list of them, or None.

    Raises:
        RequestError: names the field and the reason.
    """
    if trial is None:
        return
    call = current()
    seconds = 0.0
    for kind, source in _grammars(params if isinstance(params, list) else [params]):
        name = kind if call is None else call.names.get(kind, kind)
        if trial.library == "xgrammar":
            for schema in _schemas(kind, source):
                check_keywords(schema, name)
        verdict = await trial.verdict(kind, source)
        if verdict.why_not is not None:
            raise RequestError(f"{name} can't be used: {verdict.why_not}.")
        seconds += verdict.seconds
        if seconds > trial.seconds:  # they are compiled where those of others wait for it
            raise RequestError(
                f"the grammars of this request take more than {trial.seconds:g} s to compile together, which this "
                "server doesn't give (--proxy-max-grammar-s raises it): send fewer at once."
            )


def _grammars(params: Iterable[Mapping[str, Any] | None]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((kind, one[kind]) for one in params if one for kind in KINDS if one.get(kind)))


def _schemas(kind: str, source: str) -> list[Any]:
    """The JSON schemas of a grammar."""
    if kind == "json_schema":
        return [json.loads(source)]
    if kind == "structural_tag" and "structures" in json.loads(source):
        return schemas_of(source)
    return []
