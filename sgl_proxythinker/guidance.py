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
EXPERT_NAME = "proxy_expert"
EXPERT_WEIGHTS = "proxy_experts"
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
_UNPROVEN = "?"  # behind the name of a model in it

# The expert of requests that name none, and its amateur.
DEFAULT_PAIR = (str(EXPERT), str(AMATEUR))
# The amateur of each expert of a server, the default expert first.
Pairs = Mapping[str, str]
ONE_PAIR: Pairs = dict([DEFAULT_PAIR])

# The models that have read the common part of the radix tree.
COMMON = frozenset({str(BASE), *DEFAULT_PAIR})

MAX_CLIP = 1e4  # logits; more than any model's two differ by
Clip = Annotated[float, Field(gt=0, le=MAX_CLIP, allow_inf_nan=False)]
Plausible = Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)]


class GuidanceParams(BaseModel):
    """`custom_params` of a request, as a client writes them; None is the server's default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    proxy_alpha: Weight | None = None
    proxy_amateur_alpha: Weight | None = None  # None: proxy_alpha's
    proxy_expert: str | None = None
    proxy_experts: Annotated[dict[str, Weight], Field(min_length=1)] | None = None
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

    contrasts: tuple[Contrast, ...] = ()  # in the order of the roster
    trace: tuple[str, str] | None = None  # the expert and the amateur of which every token tells
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
        pair: tuple[str, str] = DEFAULT_PAIR,
    ) -> Guidance:
        """base + alpha * expert - amateur_alpha * amateur; None: alpha's, which is ProxyThinker's law."""
        minus = alpha if amateur_alpha is None else amateur_alpha
        told = pair if trace else None
        if not (alpha or minus if law is None else law.may_steer(alpha or minus)):
            return cls((), told, plausible=plausible or None)
        # -0 is 0
        return cls((Contrast(*pair, alpha + 0.0, minus + 0.0),), told, law, clip, plausible or None)

    @classmethod
    def of_several(
        cls,
        alphas: Mapping[str, float],
        pairs: Pairs,
        law: Law | None = None,
        clip: float | None = None,
        plausible: float | None = None,
    ) -> Guidance:
        """base + the sum of alpha * (expert - amateur) over experts, each with an alpha and an amateur of its own."""
        contrasts = tuple(
            Contrast(expert, amateur, alphas[expert], alphas[expert])
            for expert, amateur in pairs.items()
            if alphas.get(expert)
        )
        if not contrasts:
            return cls(plausible=plausible or None)
        return cls(contrasts, None, law, clip, plausible or None)

    @classmethod
    def of_carried(cls, value: Any) -> Guidance:
        """From what a scheduler got: of msgpack's, tuples have become lists."""
        contrasts, trace, law, *cuts = value
        told = None if trace is None else tuple(trace)
        return cls(tuple(Contrast(*contrast) for contrast in contrasts), told, Law.of_carried(law), *cuts)

    @property
    def is_base_alone(self) -> bool:
        return not self.contrasts

    @property
    def weights(self) -> tuple[float, float]:
        """The expert's and the amateur's, of the first pair."""
        return self.contrasts[0][2:] if self.contrasts else (0.0, 0.0)

    def weights_of(self, pair: tuple[str, str]) -> tuple[float, float]:
        """The weights of a pair of models; 0 and 0 where it is none of its contrasts."""
        return next((contrast[2:] for contrast in self.contrasts if contrast[:2] == pair), (0.0, 0.0))

    @property
    def reads(self) -> frozenset[str]:
        """The models that read its tokens, and whose keys and values its prefix must therefore have."""
        return self._steering | frozenset(self.trace or ())

    @property
    def _steering(self) -> frozenset[str]:
        """The models that say something of its tokens."""
        return frozenset({str(BASE), *(name for contrast in self.contrasts for name in contrast[:2])})

    def tree_key(self, extra_key: str | None, also: frozenset[str] = frozenset()) -> str | None:
        """The part of the radix tree that it belongs to, as SGLang's `extra_key`.

        What base, expert and amateur have read is in the common part, which has the request's own key. Any other part
        begins with who has read it and with the length of the request's own key, since SGLang may append to the whole.
        A model that can't steer the request is marked: a damaged one would not have ended it, so nobody knows
        whether its keys and values are finite, and a request that it steers doesn't go on from them. (One that a law
        steers at some tokens is not marked: where its strength was 0, nobody has looked.)

        Args:
            extra_key: the request's own (with its `cache_salt`), which goes on dividing the tree.
            also: models that read every request's tokens in this server.
        """
        readers, steering = self.reads | also, self._steering
        if readers == steering == COMMON:
            return extra_key
        own = extra_key or ""
        names = (name if name in steering else name + _UNPROVEN for name in sorted(readers))
        return f"{_MARK}{'+'.join(names)}:{len(own)}:{own}"

    def as_params(self) -> dict[str, Any]:
        """The weights, and experts, law and cuts if there are any, under the names that requests and responses use."""
        has_schedule = self.law is not None and self.law.schedule is not None
        has_several = len(self.contrasts) > 1
        # A schedule says them, at each token others; of several experts each has its own.
        weights = (None, None) if has_schedule or has_several else self.weights
        told: dict[str, Any] = dict(zip((ALPHA, AMATEUR_ALPHA), weights, strict=True))
        if has_several:
            told[EXPERT_WEIGHTS] = {contrast.plus: contrast.weight for contrast in self.contrasts}
        elif self.contrasts and self.contrasts[0].plus != EXPERT:
            told[EXPERT_NAME] = self.contrasts[0].plus
        if self.law is not None:
            told[LAW] = self.law.as_params()
        if self.clip is not None:
            told[CLIP] = self.clip
        if self.plausible is not None:
            told[PLAUSIBLE] = self.plausible
        return told


class Defaults(NamedTuple):
    """What a server has for requests that don't say it, each by itself: a strength of 0 takes no clip away."""

    alpha: float = 0.0
    law: Law | None = None
    clip: float | None = None
    plausible: float | None = None

    @property
    def guidance(self) -> Guidance:
        """Of a request that says nothing."""
        return Guidance.of(self.alpha, law=self.law, clip=self.clip, plausible=self.plausible)


def readers_of(extra_key: str | None) -> frozenset[str]:
    """The models that have read the part of the radix tree that a key names."""
    if extra_key is None or not extra_key.startswith(_MARK):
        return COMMON
    names, _, _ = extra_key.removeprefix(_MARK).partition(":")
    return frozenset(name.removesuffix(_UNPROVEN) for name in names.split("+"))


def said_over(default: Mapping[str, Any] | None, said: Mapping[str, Any]) -> dict[str, Any]:
    """`custom_params` of a call that says some of it, over a default for calls that don't."""
    law = _law(said[LAW]) if said.get(LAW) is not None else None
    says_strengths = (law is not None and law.schedule is not None) or said.get(EXPERT_WEIGHTS) is not None
    kept = {name: value for name, value in (default or {}).items() if not (says_strengths and name == ALPHA)}
    return {**kept, **said}


def read_guidance(custom_params: Any, default: Defaults, pairs: Pairs | None = ONE_PAIR) -> Guidance:
    """Read a request's `custom_params`.

    Args:
        custom_params: as they came: None or a mapping.
        default: the server's.
        pairs: the experts of the server; none where it runs the base alone. None: it is not known which it has.

    Raises:
        RequestError: HTTP 400: not a mapping, a key that nobody reads, a weight that is no finite number in [-10, 10],
            an expert that the server does not have, a trace that is no bool, a law or a cut out of range, or two of
            them that have no meaning together.
    """
    if custom_params is None:
        return default.guidance
    if not isinstance(custom_params, Mapping):
        raise RequestError(
            f'custom_params is {shown(custom_params)}, not an object. Send {{"custom_params": {{"{ALPHA}": 0.5}}}}.'
        )
    try:
        asked = GuidanceParams.model_validate(dict(custom_params))
    except ValidationError as problem:
        raise RequestError(_sentence(problem.errors(include_url=False)[0])) from None
    if asked.proxy_experts is not None:
        return _of_several(asked, asked.proxy_experts, default, pairs)
    pair = DEFAULT_PAIR if asked.proxy_expert is None else _pair(asked.proxy_expert, EXPERT_NAME, pairs)
    own = minus = default.alpha
    law = default.law
    if asked.proxy_alpha is not None:
        own = minus = asked.proxy_alpha
        law = None
    if asked.proxy_law is not None:
        law = _law(asked.proxy_law)
    if asked.proxy_amateur_alpha is not None:
        minus = asked.proxy_amateur_alpha
    clip, plausible = _cuts(asked, default)
    if own != minus:
        _refuse_for_two_weights(law, clip, asked)
    if asked.proxy_alpha is not None and law is not None and law.schedule is not None:
        raise RequestError(f"{LAW} is a schedule, which says the strength at every token: leave {ALPHA} out.")
    return Guidance.of(own, minus, asked.proxy_trace is True, law, clip, plausible, pair)


def _cuts(asked: GuidanceParams, default: Defaults) -> tuple[float | None, float | None]:
    """The clip and the share that is plausible."""
    clip = default.clip if asked.proxy_clip is None else asked.proxy_clip
    return clip, default.plausible if asked.proxy_plausible is None else asked.proxy_plausible


def _pair(expert: str, field: str, pairs: Pairs | None) -> tuple[str, str]:
    """An expert that a request names, and its amateur."""
    if pairs is None:
        return expert, str(AMATEUR)
    if expert not in pairs:
        told = f"names {shown(expert)}" if field == EXPERT_WEIGHTS else f"is {shown(expert)}"
        raise RequestError(
            f"{field} {told}, and this server's experts are {', '.join(pairs)}: name one of them."
            if pairs
            else f"{field} {told}, and this server runs the base model alone: leave it out."
        )
    return expert, pairs[expert]


def _of_several(asked: GuidanceParams, alphas: Mapping[str, float], default: Defaults, pairs: Pairs | None) -> Guidance:
    for name in (ALPHA, AMATEUR_ALPHA, EXPERT_NAME):
        if getattr(asked, name) is not None:
            raise RequestError(f"{EXPERT_WEIGHTS} says the strength of each expert: leave {name} out.")
    if asked.proxy_trace:
        raise RequestError(
            f"{TRACE} tells of one expert beside its amateur: ask for it by {EXPERT_NAME} in place of "
            f"{EXPERT_WEIGHTS}, or leave {TRACE} out."
        )
    known = dict(_pair(name, EXPERT_WEIGHTS, pairs) for name in alphas)
    if pairs is not None:
        known = {expert: amateur for expert, amateur in pairs.items() if expert in known}
    law = None if asked.proxy_law is None else _law(asked.proxy_law)
    if law is not None and law.replaces_alpha:
        raise RequestError(
            f"{EXPERT_WEIGHTS} says the strength of each expert, and {LAW} one strength: name one expert by "
            f"{EXPERT_NAME}, or send a law of kind entropy, or none."
        )
    return Guidance.of_several(alphas, known, law, *_cuts(asked, default))


def _law(value: Any) -> Law | None:
    try:
        return read_law(value)
    except ValidationError as problem:
        raise RequestError(sentence_of(problem.errors(include_url=False))) from None
    except ValueError as problem:
        raise RequestError(f"{LAW}: {problem}.") from None


def _refuse_for_two_weights(law: Law | None, clip: float | None, asked: GuidanceParams) -> None:
    """Of expert and amateur that are weighted differently, nothing says what these would mean."""
    if law is not None and law.replaces_alpha:
        which = f"this server's {LAW}" if asked.proxy_law is None else LAW
        what_to_do = f"send {ALPHA} too" if asked.proxy_law is None else "leave one out"
        raise RequestError(
            f"{AMATEUR_ALPHA} differs from the expert's strength, and {which} says one strength for both: {what_to_do}."
        )
    if clip is not None:
        which = f"this server's {CLIP}" if asked.proxy_clip is None else CLIP
        what_to_do = f"leave {AMATEUR_ALPHA} out" if asked.proxy_clip is None else "leave one out"
        raise RequestError(
            f"{which} cuts the difference of expert and amateur, and {AMATEUR_ALPHA} weights them apart: {what_to_do}."
        )


def _sentence(error: Mapping[str, Any]) -> str:
    name = error["loc"][0]
    if name not in KNOWN_KEYS:
        # Other readers of `custom_params`, custom logit processors, are refused: nobody would read it.
        return f"custom_params has an unknown key {shown(name)}: known are {', '.join(KNOWN_KEYS)}."
    value = shown(error["input"])
    if name == EXPERT_NAME:
        return f"{EXPERT_NAME} is {value}: send the name of one of the server's experts, or leave it out."
    if name == EXPERT_WEIGHTS:
        of_one = f" of {shown(error['loc'][1])}" if len(error["loc"]) > 1 else ""
        return (
            f"{EXPERT_WEIGHTS}{of_one} is {value}: send an object with a strength for each expert, such as "
            f'{{"{EXPERT}": 0.4}}, each a finite number in [-{MAX_ALPHA:g}, {MAX_ALPHA:g}].'
        )
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
