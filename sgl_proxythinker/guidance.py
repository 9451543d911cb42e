"""What a request asks of guidance: read once, in the main process, into a canonical value that every process compares.

The server's default and a request's `custom_params` become the same type. No step reads a request again: it compares
small tuples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.laws import MAX_ALPHA, Law, Weight, read_law
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT
from sgl_proxythinker.sentences import sentence_of, shown

ALPHA = "proxy_alpha"
AMATEUR_ALPHA = "proxy_amateur_alpha"
LAW = "proxy_law"
CLIP = "proxy_clip"
PLAUSIBLE = "proxy_plausible"
TRACE = "proxy_trace"
PREFIX = "proxy_"

# In the `custom_params` that schedulers get; clients can't send it.
CARRIED = "proxy_guidance"

# What an `extra_key` of ours begins with. Clients' keys have no control characters (`generate_fields.Label`).
_MARK = "\x1fproxythinker:"

# The models that have read the common part of the radix tree; those of a trace.
COMMON = frozenset({str(BASE), str(EXPERT), str(AMATEUR)})

MAX_CLIP = 1e4  # logits; more than any model's two differ by
Clip = Annotated[float, Field(gt=0, le=MAX_CLIP, allow_inf_nan=False)]
Plausible = Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)]


class GuidanceParams(BaseModel):
    """`custom_params` of a request, as a client writes them; None is the server's default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    proxy_alpha: Weight | None = None
    proxy_amateur_alpha: Weight | None = None  # None: proxy_alpha's
    proxy_law: Any = None  # `laws.read_law`
    proxy_clip: Clip | None = None
    proxy_plausible: Plausible | None = None
    proxy_trace: bool | None = None


KNOWN_KEYS = tuple(GuidanceParams.model_fields)


class Contrast(NamedTuple):
    """weight * plus - minus_weight * minus, of raw logits; computed as weight * (plus - minus) where they are equal."""

    plus: str
    minus: str
    weight: float
    minus_weight: float


class Guidance(NamedTuple):
    """Canonical: two requests that ask for the same are equal. Contrasts of weight 0 are none; () is the base alone."""

    contrasts: tuple[Contrast, ...] = ()
    trace: bool = False
    law: Law | None = None  # what makes the strength another one at some tokens; None where there is no contrast
    clip: float | None = None  # plus - minus is cut to [-clip, clip] before it is weighted
    plausible: float | None = None  # ids below this share of the base's best probability can't be drawn; never 0

    @classmethod
    def of(
        cls,
        alpha: float,
        amateur_alpha: float | None = None,
        trace: bool = False,
        law: Law | None = None,
        clip: float | None = None,
        plausible: float | None = None,
    ) -> Guidance:
        """base + alpha * expert - amateur_alpha * amateur; None: alpha's, which is ProxyThinker's law."""
        minus = alpha if amateur_alpha is None else amateur_alpha
        if not (alpha or minus if law is None else law.may_steer(alpha or minus)):
            return cls((), trace, plausible=plausible or None)
        # -0 is 0
        contrast = Contrast(str(EXPERT), str(AMATEUR), alpha + 0.0, minus + 0.0)
        return cls((contrast,), trace, law, clip, plausible or None)

    @classmethod
    def of_carried(cls, value: Any) -> Guidance:
        """From what a scheduler got: of msgpack's, tuples have become lists."""
        contrasts, trace, law, *cuts = value
        return cls(tuple(Contrast(*contrast) for contrast in contrasts), trace, Law.of_carried(law), *cuts)

    @property
    def is_base_alone(self) -> bool:
        return not self.contrasts

    @property
    def weights(self) -> tuple[float, float]:
        """The expert's and the amateur's."""
        return self.contrasts[0][2:] if self.contrasts else (0.0, 0.0)

    def weights_of(self, pair: tuple[str, str]) -> tuple[float, float]:
        """The weights of a pair of models; 0 and 0 where it is none of its contrasts."""
        return next((contrast[2:] for contrast in self.contrasts if contrast[:2] == pair), (0.0, 0.0))

    @property
    def reads(self) -> frozenset[str]:
        """The models that read its tokens, and whose keys and values its prefix must therefore have."""
        contrasted = {name for contrast in self.contrasts for name in contrast[:2]}
        return frozenset({BASE, *contrasted}) | (COMMON if self.trace else frozenset())

    def tree_key(self, extra_key: str | None, also: frozenset[str] = frozenset()) -> str | None:
        """The part of the radix tree that it belongs to, as SGLang's `extra_key`.

        What base, expert and amateur have read is in the common part, which has the request's own key, but for traced
        answers by the base alone, which no damaged expert ends: they have a part of their own. Any other part
        begins with who has read it and with the length of the request's own key, since SGLang may append to the whole.

        Args:
            extra_key: the request's own (with its `cache_salt`), which goes on dividing the tree.
            also: models that read every request's tokens in this server.
        """
        readers = self.reads | also
        # Of a traced answer by the base alone nobody knows whether the others' keys and values are finite.
        if readers == COMMON and not (self.trace and self.is_base_alone):
            return extra_key
        own = extra_key or ""
        return f"{_MARK}{'+'.join(sorted(readers))}:{len(own)}:{own}"

    def as_params(self) -> dict[str, Any]:
        """The weights, and a law and cuts if there are any, under the names that requests and responses use."""
        has_schedule = self.law is not None and self.law.schedule is not None
        weights = (None, None) if has_schedule else self.weights  # a schedule says them, at each token others
        told: dict[str, Any] = dict(zip((ALPHA, AMATEUR_ALPHA), weights, strict=True))
        if self.law is not None:
            told[LAW] = self.law.as_params()
        if self.clip is not None:
            told[CLIP] = self.clip
        if self.plausible is not None:
            told[PLAUSIBLE] = self.plausible
        return told


def readers_of(extra_key: str | None) -> frozenset[str]:
    """The models that have read the part of the radix tree that a key names."""
    if extra_key is None or not extra_key.startswith(_MARK):
        return COMMON
    names, _, _ = extra_key.removeprefix(_MARK).partition(":")
    return frozenset(names.split("+"))


def said_over(default: Mapping[str, Any] | None, said: Mapping[str, Any]) -> dict[str, Any]:
    """`custom_params` of a call that says some of it, over a default for calls that don't."""
    law = _law(said[LAW]) if said.get(LAW) is not None else None
    is_scheduled = law is not None and law.schedule is not None
    kept = {name: value for name, value in (default or {}).items() if not (is_scheduled and name == ALPHA)}
    return {**kept, **said}


def read_guidance(custom_params: Any, default: Guidance) -> Guidance:
    """Read a request's `custom_params`.

    Args:
        custom_params: as they came: None or a mapping.
        default: the server's, for a request that names no strength.

    Raises:
        RequestError: HTTP 400: not a mapping, a key that nobody reads, a weight that is no finite number in [-10, 10],
            a trace that is no bool, a law or a cut out of range, or two of them that have no meaning together.
    """
    if custom_params is None:
        return default
    if not isinstance(custom_params, Mapping):
        raise RequestError(
            f'custom_params is {shown(custom_params)}, not an object. Send {{"custom_params": {{"{ALPHA}": 0.5}}}}.'
        )
    try:
        asked = GuidanceParams.model_validate(dict(custom_params))
    except ValidationError as problem:
        raise RequestError(_sentence(problem.errors(include_url=False)[0])) from None
    own, minus = default.weights
    law = default.law
    if asked.proxy_alpha is not None:
        own = minus = asked.proxy_alpha
        law = None
    if asked.proxy_law is not None:
        law = _law(asked.proxy_law)
    if asked.proxy_amateur_alpha is not None:
        minus = asked.proxy_amateur_alpha
    clip = default.clip if asked.proxy_clip is None else asked.proxy_clip
    if own != minus:
        _refuse_for_two_weights(law, clip)
    if asked.proxy_alpha is not None and law is not None and law.schedule is not None:
        raise RequestError(f"{LAW} is a schedule, which says the strength at every token: leave {ALPHA} out.")
    plausible = default.plausible if asked.proxy_plausible is None else asked.proxy_plausible
    return Guidance.of(own, minus, asked.proxy_trace is True, law, clip, plausible)


def _law(value: Any) -> Law | None:
    try:
        return read_law(value)
    except ValidationError as problem:
        raise RequestError(sentence_of(problem.errors(include_url=False))) from None
    except ValueError as problem:
        raise RequestError(f"{LAW}: {problem}.") from None


def _refuse_for_two_weights(law: Law | None, clip: float | None) -> None:
    """Of expert and amateur that are weighted differently, nothing says what these would mean."""
    if law is not None and law.replaces_alpha:
        raise RequestError(
            f"{AMATEUR_ALPHA} differs from the expert's strength, and {LAW} says one strength for both: leave one out."
        )
    if clip is not None:
        raise RequestError(
            f"{CLIP} cuts the difference of expert and amateur, and {AMATEUR_ALPHA} weights them apart: leave one out."
        )


def _sentence(error: Mapping[str, Any]) -> str:
    name = error["loc"][0]
    if name not in KNOWN_KEYS:
        # Other readers of `custom_params`, custom logit processors, are refused: nobody would read it.
        return f"custom_params has an unknown key {shown(name)}: known are {', '.join(KNOWN_KEYS)}."
    value = shown(error["input"])
    if name == CLIP:
        return f"{CLIP} is {value}: send a number of logits above 0, at most {MAX_CLIP:g}."
    if name == PLAUSIBLE:
        return (
            f"{PLAUSIBLE} is {value}: send a share of the probability of the base's best id, from 0, which rules "
            "nothing out, to 1, which leaves that id alone."
        )
    if name == TRACE:
        return f"{TRACE} is {value}: send true for evidence with every token, or leave it out."
    if error["type"] == "float_type" and not isinstance(error["input"], int):
        return f"{name} is {value}, not a number. Send a number in [-{MAX_ALPHA:g}, {MAX_ALPHA:g}]."
    return f"{name} is {value}: send a finite number in [-{MAX_ALPHA:g}, {MAX_ALPHA:g}]."
