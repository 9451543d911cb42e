"""Refuse grammars that admit no text when they are compiled, and say in one sentence why one can't be compiled.

Stock: compiles a grammar, in a thread; what can't be compiled becomes an object that its request is refused with.
Ours:  the same, then looks at the first step's mask: a grammar without a first token is refused too, and a JSON
       schema without a finite value.
Why a hook: every kind of grammar of every backend is compiled here, and the result is cached.
"""

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.constrained.base_grammar_backend:BaseGrammarBackend._init_value_dispatch",
    signature="(self, key, require_reasoning)",
    why="a grammar that admits nothing would be answered by an empty text that looks like a result",
    until="SGLang refuses grammars without a first token",
    checked={"0.5.17": "c57ed6615a24"},
)


def around(original, backend, key, require_reasoning):
    from sgl_proxythinker.guards.grammars import compile_or_refuse

    return compile_or_refuse(*key, lambda: original(backend, key, require_reasoning))
