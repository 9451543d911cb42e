"""How a final answer is asked for, found in a text, and compared with another one.

The tags are those that RL-tuned models were trained to write (`<think>`, `<answer>`), and `\\boxed{}` is what
mathematics was taught with. Comparing is `math-verify`'s work where both answers are mathematics: 1/2 is 0.5.
"""

from __future__ import annotations

import re
import threading

from math_verify import LatexExtractionConfig, parse, verify

THINK_FIRST = "Think step by step inside <think> </think>, then give only the final answer inside <answer> </answer>."

COMPARED_WITHIN_S = 5

_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)  # what was opened last is what is closed
_BOXED = re.compile(r"\\boxed\s*\{")
_WORD = re.compile(r"(?<!\\)(?<![A-Za-z])[A-Za-z]{2,}")  # \frac is none
_MATHEMATICS = re.compile(r"\d|\\[A-Za-z]|π")
# Worked out, these fill the memory: powers of powers, exponents of four digits, factorials of three, large binomials.
_TOO_LARGE = re.compile(r"\^\s*(\{[^{}]*\^|\w\s*\^|\{?\s*[-+]?\d{4})|\d{3}\s*!|binom\D*\d{4}")


def ask(question: str, instruction: str) -> str:
    """The text of a question with how to answer it; a model that was trained on bare questions gets no instruction."""
    return f"{question}\n\n{instruction}" if instruction else question


def final_answer(text: str, cut_off: bool = False) -> str:
    """What a text claims the answer is: the last `\\boxed{}` of the last `<answer>`, else what the thought left over.

    Without `<answer>` the last `\\boxed{}` counts, without that the text after `</think>`, without that all of it.
    Empty where nothing is claimed, because the text ends inside a thought, an `<answer>` or a `\\boxed{`, or was cut
    off (by max_tokens) before it said where its answer is.
    """
    found = _ANSWER.findall(text)
    claim = found[-1] if found else text
    if boxes := list(_BOXED.finditer(claim)):
        return _inside_braces(claim[boxes[-1].end() :])
    if found:
        return claim.strip()
    _, ended, rest = text.rpartition("</think>")
    unfinished = cut_off or "<answer>" in rest or (not ended and "<think>" in rest)
    return "" if unfinished else rest.strip()


def normal_form(answer: str) -> str:
    """The same answer without what is no part of it: case, spaces, `$`, `**`, a full stop, the brackets of "(B)"."""
    plain = " ".join(answer.casefold().replace("−", "-").split()).strip("$* ").rstrip(". ").strip("$* ")
    return re.sub(r"^\(([a-z])\)$", r"\1", plain)


def same_answer(one: str, other: str) -> bool:
    """Whether two answers say the same: the same normal form, or the same mathematics.

    Mathematics is what has a digit, a LaTeX command and no words: "3 cats" is only equal to "3 cats". Nothing is equal
    to an answer that claims nothing. In the main thread a comparison ends after `COMPARED_WITHIN_S`, as unequal; other
    threads have no alarm, and there is none to wait for but what `_TOO_LARGE` keeps out.
    """
    first, second = normal_form(one), normal_form(other)
    if not first or not second:
        return False
    if first == second:
        return True
    if not (_is_mathematics(first) and _is_mathematics(second)):
        return False
    limit = COMPARED_WITHIN_S if threading.current_thread() is threading.main_thread() else None
    left, right = (
        parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=limit, fallback_mode="no_fallback")
        for text in (first, second)
    )
    # What is compared may depend on which one is taken for the truth (x=1 against 1); here neither is.
    return verify(left, right, timeout_seconds=limit) or verify(right, left, timeout_seconds=limit)


def _is_mathematics(text: str) -> bool:
    return bool(_MATHEMATICS.search(text)) and not _WORD.search(text) and not _TOO_LARGE.search(text)


def _inside_braces(text: str) -> str:
    """Up to the brace that closes one opened just before; nothing if it never comes."""
    depth = 1
    for index, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[:index].strip()
    return ""
