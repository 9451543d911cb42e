"""A process that compiles grammars to see whether it can be done: it may take too long, fill its memory, or crash.

    python -m sgl_proxythinker.requests.grammar_process llguidance 5

One line of JSON comes in for each grammar, [kind, source], and one line goes out: "ok", or "error" where the grammar is
wrong, and the seconds of processor time that it took. A compilation that takes more processor time than is given ends
the process by SIGPROF, one that takes more memory ends it with `OUT_OF_MEMORY`.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY_BYTES = 2 << 30  # that a compilation may take, beside what the libraries take
OUT_OF_MEMORY = 86  # an exit code that nothing else has
_PR_SET_PDEATHSIG = 1


def main(library: str, seconds: float) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a server that ends leaves no compilation behind
    compile_ = _COMPILERS[library]()
    _bound_memory()
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        start = time.process_time()
        verdict = "ok" if _compiles(compile_, *json.loads(line)) else "error"
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(f"{verdict} {time.process_time() - start:.3f}\n")
        sys.stdout.flush()


def _compiles(compile_: Callable[[str, str], None], kind: str, source: str) -> bool:
    try:
        compile_(kind, source)
    except Exception as error:  # what is wrong is said where it is compiled for good, with the model's tokens
        if isinstance(error, MemoryError) or "bad_alloc" in str(error):
            os._exit(OUT_OF_MEMORY)
        return False
    return True


def _llguidance() -> Callable[[str, str], None]:
    from llguidance import LLMatcher, LLTokenizer, grammar_from

    tokenizer = LLTokenizer("byte")

    def compile_(kind: Any, source: str) -> None:
        if kind == "structural_tag":
            for schema in schemas_of(source):
                compile_("json_schema", json.dumps(schema))
            return
        grammar = LLMatcher.grammar_from_json_schema(source) if kind == "json_schema" else grammar_from(kind, source)
        matcher = LLMatcher(tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        matcher.compute_bitmask()

    return compile_


def _xgrammar() -> Callable[[str, str], None]:
    from xgrammar import GrammarCompiler, TokenizerInfo

    # One token for each byte.
    tokens = TokenizerInfo([f"<0x{byte:02X}>" for byte in range(256)])
    compiler = GrammarCompiler(tokens, max_threads=1, cache_enabled=False)
    compilers: dict[str, Callable[[str], object]] = {
        "json_schema": compiler.compile_json_schema,
        "regex": compiler.compile_regex,
        "ebnf": compiler.compile_grammar,
        "structural_tag": compiler.compile_structural_tag,
    }

    def compile_(kind: str, source: str) -> None:
        if kind == "structural_tag" and "structures" in json.loads(source):
            for schema in schemas_of(source):
                compile_("json_schema", json.dumps(schema))
        else:
            compilers[kind](source)

    return compile_


def schemas_of(structural_tag: str) -> list[Any]:
    """The JSON schemas in SGLang's own form of a structural tag."""
    return [each.get("schema") or {} for each in json.loads(structural_tag)["structures"]]


def _bound_memory() -> None:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    data = int(status["VmData"].split()[0]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (data + MEMORY_BYTES, data + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


_COMPILERS = {"llguidance": _llguidance, "xgrammar": _xgrammar}

if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
