"""What `explain` shows: the answers to one question at several alphas, and under a law of them, token by token."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, computed_field

from sgl_proxythinker.guidance import ALPHA, CLIP, LAW, PLAUSIBLE, TRACE
from sgl_proxythinker.programs.token_texts import Decode, token_texts, visible

# From which factor on guidance changed a token's probability enough to be shaded, and the darker shades.
SHADE_FACTORS = (1.1, 1.5, 3.0, 10.0)
# Where the chart ends: a probability of 1 in 8,100, below which nobody would have said it.
LOWEST_LOGPROB = -9.0


class Token(BaseModel):
    """One token of an answer. Log probabilities are natural logs; None where a damaged proxy gave no number."""

    model_config = ConfigDict(frozen=True)

    text: str  # "" for a part of a character that a later token completes
    base_text: str  # of the token that the base alone found most likely here
    flipped: bool  # the base alone would have said another token
    base_logprob: float
    expert_logprob: float | None
    amateur_logprob: float | None
    fused_logprob: float
    js_nats: float | None  # how far expert and amateur disagree here, from 0 to log 2
    alpha: float | None  # the strength of guidance here
    base_entropy_nats: float | None  # how unsure the base is here

    @computed_field  # type: ignore[prop-decorator]
    @property
    def pull(self) -> float:
        """By how many nats guidance raised (or, below 0, lowered) this token's log probability."""
        return self.fused_logprob - self.base_logprob

    @property
    def times(self) -> str:
        """How many times as likely guidance made this token as the base alone had it, as in "×1.5"."""
        if self.pull > math.log(10_000):  # in words, before exp() of a large pull overflows
            return "over ×10,000"
        factor = math.exp(self.pull)
        return f"×{factor:,.{0 if factor >= 10 else 1}f}"

    @property
    def space(self) -> str:
        """The blanks before its word, which are not shaded: they would stand at a line's end, away from the word."""
        return self.text.removesuffix(self.word)

    @property
    def word(self) -> str:
        return self.text.lstrip(" \t") or self.text

    @property
    def label(self) -> str:
        """Its word, or a sign for what can't be seen."""
        return label(self.text)

    @property
    def base_label(self) -> str:
        return label(self.base_text)

    @property
    def spoken(self) -> str | None:
        """What a screen reader says in place of its text; None where the text does."""
        if self.flipped:
            return f"{_spoken(self.text)}, flipped; the base would have said {_spoken(self.base_text)}"
        return None if self.text.strip() else _spoken(self.text)

    @property
    def shade(self) -> str:
        """The class of the shade: "up1" to "up4", "down1" to "down4", or "" for a token that was left alone."""
        level = sum(abs(self.pull) >= math.log(factor) for factor in SHADE_FACTORS)
        return f"{'up' if self.pull > 0 else 'down'}{level}" if level else ""


class Answer(BaseModel):
    """What the models said at one alpha, or under one law."""

    model_config = ConfigDict(frozen=True)

    alpha: float | None  # the constant strength; None where points of a schedule say it at every token
    law: list[dict[str, Any]] | None = None  # `proxy_law`; None: the strength is constant
    clip: float | None = None  # `proxy_clip`
    plausible: float | None = None  # `proxy_plausible`
    tokens: list[Token]

    @property
    def name(self) -> str:
        """As the page and the terminal call it."""
        at = "" if self.alpha is None else f"alpha {self.alpha:g}"
        return at if self.law is None else f"law at {at}" if at else "law"

    @property
    def law_text(self) -> str:
        """The law as a request writes it."""
        laws = self.law or []
        return json.dumps(laws[0] if len(laws) == 1 else laws, ensure_ascii=False)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def flips(self) -> int:
        return sum(token.flipped for token in self.tokens)

    @property
    def steered(self) -> int:
        """Tokens at which the strength was not 0."""
        return sum(bool(token.alpha) for token in self.tokens)

    @property
    def strongest(self) -> Token | None:
        """The token that guidance raised most."""
        return max(self.tokens, key=lambda token: token.pull, default=None)


class Explanation(BaseModel):
    """One question, its pictures, and the answers from the lowest alpha to the highest; the last one under the law."""

    model_config = ConfigDict(frozen=True)

    question: str
    pictures: list[str] = Field(exclude=True)  # data URLs
    base: str
    expert: str
    amateur: str
    answers: list[Answer]

    @property
    def lowest_logprob(self) -> float:
        """Where the chart of every answer ends, so that they can be compared: a whole number below 0."""
        told = (min(one.base_logprob, one.fused_logprob) for answer in self.answers for one in answer.tokens)
        return max(LOWEST_LOGPROB, min(-1.0, math.floor(min(told, default=-1.0))))


def label(text: str) -> str:
    """A token's text without the blanks around it, or a sign for text that can't be seen."""
    return text.strip() or ("↵" if "\n" in text else "␣" if text else "⋯")


def _spoken(text: str) -> str:
    return text.strip() or {"↵": "line end", "␣": "space", "⋯": "part of a character"}[label(text)]


def answer_from_meta(meta: dict[str, Any], decode: Decode) -> Answer:
    """Read the `meta_info` of an answer that was traced.

    Args:
        meta: as the server gave it: the trace, and what made the answer.
        decode: the server's tokenizer: sequences of ids -> their texts.
    """
    trace = meta[TRACE]
    texts = token_texts(trace["token_id"], decode)
    base_texts = decode([[one] for one in trace["base_top1_id"]])
    logprobs = ("base_logprob", "expert_logprob", "amateur_logprob", "fused_logprob")
    shown = ("flipped", *logprobs, "js_nats", "alpha", "base_entropy_nats")
    columns = zip(texts, base_texts, *(trace[name] for name in shown), strict=True)
    tokens = [
        Token(text=visible(text), base_text=visible(base_text), **dict(zip(shown, values, strict=True)))
        for text, base_text, *values in columns
    ]
    made = {"alpha": meta[ALPHA], "law": meta.get(LAW), "clip": meta.get(CLIP), "plausible": meta.get(PLAUSIBLE)}
    return Answer(**made, tokens=tokens)
