"""`stop_regex` in bounded time: llguidance's derivative automaton reads each new byte once, whatever pattern and text.

Python's `re`, which SGLang uses, doubles its time with each character on patterns such as `(a+)+b`, inside the
scheduler's loop and for everybody. The automaton here goes on from where it stood, so that a step costs as much as its
new characters, and its size is bounded by counts (not by a clock): every rank takes the same decision.
"""

from __future__ import annotations

import codecs
import re
from functools import cache
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, grammar_from

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guards.one_sentence import compiler_reason
from sgl_proxythinker.guards.token_bytes import token_bytes

MAX_PATTERNS = 4
MAX_CHARACTERS = 1000
# Of all prompts and samples of a request: a scheduler builds each, in a few ms, between the steps of all others.
MAX_PATTERNS_IN_ALL = 512
# Where case is ignored, each set of many characters takes 10 ms and more to build, before any count of llguidance's
# begins: character after character is folded. So sets are of single characters and of ranges of ASCII.
_IGNORES_CASE = re.compile(r"\(\?[a-zA-Z]*i")
_SKIPS_BLANKS = re.compile(r"\(\?[a-zA-Z]*x")
_SET = re.compile(r"\[\^?\]?((?:\\.|[^\]\\])*)\]", re.DOTALL)
_PLAIN_SET = re.compile(r"(?:\\[dsntrf\\\]\[\-.^/()+*?|$'\"]|[ -Z^-~]|[^\x00-\x7f])*")
_WIDE_RANGE = re.compile(r"-[^\x00-\x7f]")
_OPERATORS = ("&&", "--", "~~", "||")
# Of one pattern: the automaton's states (1 to 2 kB each), and work to build it. With five times the states and four
# times the work a step of 4 characters took 0.6 ms at the worst of a dozen patterns that were written to be slow.
_LIMITS = LLParserLimits(initial_lexer_fuel=200_000, step_lexer_fuel=5_000, max_lexer_states=1_000)


class StopRegexError(Exception):
    """A pattern's automaton has grown past its bounds on this text."""


def check_stop_regex(patterns: Any) -> None:
    """Refuse patterns that can't be matched in linear time, before a scheduler sees them.

    Args:
        patterns: `stop_regex` of a request: None, a string or a list of strings.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    patterns = [] if patterns is None else [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(pattern, str) for pattern in patterns):
        raise RequestError("stop_regex takes a regular expression or a list of them, each one a string.")
    if len(patterns) > MAX_PATTERNS:
        raise RequestError(f"stop_regex has {len(patterns)} patterns, and {MAX_PATTERNS} are the most that are taken.")
    for pattern in patterns:
        if not 0 < len(pattern) <= MAX_CHARACTERS:
            raise RequestError(
                f"stop_regex has a pattern of {len(pattern)} characters: 1 to {MAX_CHARACTERS} are taken."
            )
        if takes_long_to_build(pattern):
            raise RequestError(
                f"stop_regex can't be {pattern[:80]!r}: it ignores case (i) and has a set of other than plain "
                "characters, which takes long to build. Write (?s:.) for any character, or both cases."
            )
        # By itself first: `)|(` is a pattern only inside of what it is put into.
        for grammar in (grammar_from("regex", pattern), _anywhere(pattern)):
            if problem := LLMatcher.validate_grammar(grammar, _bytes_tokenizer(), limits=_LIMITS):
                raise RequestError(
                    f"stop_regex can't be {pattern[:80]!r}: {compiler_reason(problem)}. It takes regular expressions "
                    "without anchors, word boundaries, look-around and back references; stop takes plain strings."
                )


def takes_long_to_build(pattern: str) -> bool:
    """Whether a regular expression ignores case and has sets that may be of many characters."""
    if not _IGNORES_CASE.search(pattern):
        return False
    if _SKIPS_BLANKS.search(pattern) or re.search(r"\\[pPN]", pattern):
        return True
    sets = _SET.findall(pattern)
    return pattern.count("[") - pattern.count("\\[") > len(sets) or any(
        not _PLAIN_SET.fullmatch(each) or _WIDE_RANGE.search(each) or any(operator in each for operator in _OPERATORS)
        for each in sets
    )


class StopRegexes:
    """The patterns of one request, and how far they have read its text."""

    def __init__(self, patterns: list[str]):
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._matchers = [
            (pattern, LLMatcher(_bytes_tokenizer(), _anywhere(pattern), log_level=0, limits=_LIMITS))
            for pattern in patterns
        ]
        self.tokens_read = 0

    def read(self, tokenizer: Any, token_ids: list[int]) -> tuple[str, int] | None:
        """Read tokens that follow those read before.

        Returns:
            The first pattern that matches somewhere in the text so far, and how many of `token_ids` it took; or None.

        Raises:
            StopRegexError: a pattern's automaton has grown past its bounds.
        """
        for count, token_id in enumerate(token_ids, 1):
            self.tokens_read += 1
            text = self._decoder.decode(token_bytes(tokenizer, token_id)).encode()
            for pattern, matcher in self._matchers:
                if text and not matcher.consume_tokens(list(text)):
                    raise StopRegexError(pattern)
                if matcher.is_accepting():
                    return pattern, count
        return None


def _anywhere(pattern: str) -> str:
    return grammar_from("regex", f"(?s:.)*(?:{pattern})(?s:.)*")


@cache
def _bytes_tokenizer() -> LLTokenizer:
    return LLTokenizer("byte")
