"""A process that compiles grammars to see whether it can be done: it may take too long, fill its memory, or crash.

    python -m sgl_proxythinker.requests.grammar_process llguidance 5

One line of JSON comes in for each grammar, [kind, source], and one line goes out when its compilation has ended,
however it ended. A compilation that takes more processor time than is given ends the process by SIGPROF.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

MEMORY_BYTES = 2 << 30  # that compilations may take, beside what the libraries take


def main(library: str, seconds: float) -> None:
    compile_ = _COMPILERS[library]()
    _bound_memory()
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        # What is wrong with a grammar is said where it is compiled for good, with the model's tokens.
        with contextlib.suppress(Exception):
            compile_(*json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write("done\n")
        sys.stdout.flush()


def _llguidance() -> Callable[[str, str], None]:
    from llguidance import LLMatcher, LLTokenizer, grammar_from

    tokenizer = LLTokenizer("byte")

    def compile_(kind: str, source: str) -> None:
        if kind == "json_schema":
            grammars = [LLMatcher.grammar_from_json_schema(source)]
        elif kind == "structural_tag":
            structures = json.loads(source)["structures"]
            grammars = [LLMatcher.grammar_from_json_schema(json.dumps(each["schema"])) for each in structures]
        else:
            grammars = [grammar_from(kind, source)]
        for grammar in grammars:
            LLMatcher(tokenizer, grammar, log_level=0).compute_bitmask()

    return compile_


def _xgrammar() -> Callable[[str, str], None]:
    from xgrammar import GrammarCompiler, TokenizerInfo

    # One token for each byte.
    compiler = GrammarCompiler(TokenizerInfo([f"<0x{byte:02X}>" for byte in range(256)]), max_threads=1)
    compilers = {
        "json_schema": compiler.compile_json_schema,
        "regex": compiler.compile_regex,
        "ebnf": compiler.compile_grammar,
        "structural_tag": compiler.compile_structural_tag,
    }

    def compile_(kind: str, source: str) -> None:
        compilers[kind](source)

    return compile_


def _bound_memory() -> None:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    data = int(status["VmData"].split()[0]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (data + MEMORY_BYTES, data + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


_COMPILERS = {"llguidance": _llguidance, "xgrammar": _xgrammar}

if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
