"""What a request asks of guidance: read once, in the main process, into a canonical value that every process compares.

The server's default and a request's `custom_params` become the same type. No step reads a request again: it compares
small tuples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT
from sgl_proxythinker.sentences import shown

MAX_ALPHA = 10.0

ALPHA = "proxy_alpha"
AMATEUR_ALPHA = "proxy_amateur_alpha"
TRACE = "proxy_trace"
PREFIX = "proxy_"

# In the `custom_params` that schedulers get; clients can't send it.
CARRIED = "proxy_guidance"

# What an `extra_key` of ours begins with. Clients' keys have no control characters (`generate_fields.Label`).
_MARK = "\x1fproxythinker:"

# The models that have read the common part of the radix tree; those of a trace.
COMMON = frozenset({str(BASE), str(EXPERT), str(AMATEUR)})

_Weight = Annotated[float, Field(ge=-MAX_ALPHA, le=MAX_ALPHA, allow_inf_nan=False)]


class GuidanceParams(BaseModel):
    """`custom_params` of a request, as a client writes them; None is the server's default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    proxy_alpha: _Weight | None = None
    proxy_amateur_alpha: _Weight | None = None  # None: proxy_alpha's
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

    @classmethod
    def of(cls, alpha: float, amateur_alpha: float | None = None, trace: bool = False) -> Guidance:
        """base + alpha * expert - amateur_alpha * amateur; None: alpha's, which is ProxyThinker's law."""
        minus = alpha if amateur_alpha is None else amateur_alpha
        if not alpha and not minus:
            return cls((), trace)
        # -0 is 0
        return cls((Contrast(str(EXPERT), str(AMATEUR), alpha + 0.0, minus + 0.0),), trace)

    @classmethod
    def of_carried(cls, value: Any) -> Guidance:
        """From what a scheduler got: of msgpack's, tuples have become lists."""
        contrasts, trace = value
        return cls(tuple(Contrast(*contrast) for contrast in contrasts), trace)

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

    def as_params(self) -> dict[str, float]:
        """The weights under the names that requests and responses use."""
        return dict(zip((ALPHA, AMATEUR_ALPHA), self.weights, strict=True))


def readers_of(extra_key: str | None) -> frozenset[str]:
    """The models that have read the part of the radix tree that a key names."""
    if extra_key is None or not extra_key.startswith(_MARK):
        return COMMON
    names, _, _ = extra_key.removeprefix(_MARK).partition(":")
    return frozenset(names.split("+"))


def read_guidance(custom_params: Any, default: Guidance) -> Guidance:
    """Read a request's `custom_params`.

    Args:
        custom_params: as they came: None or a mapping.
        default: the server's, for a request that names no strength.

    Raises:
        RequestError: HTTP 400: not a mapping, a key that nobody reads, a weight that is no finite number in [-10, 10],
            a trace that is no bool.
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
    if asked.proxy_alpha is not None:
        own = minus = asked.proxy_alpha
    if asked.proxy_amateur_alpha is not None:
        minus = asked.proxy_amateur_alpha
    return Guidance.of(own, minus, asked.proxy_trace is True)


def _sentence(error: Mapping[str, Any]) -> str:
    name = error["loc"][0]
    if name not in KNOWN_KEYS:
        # Other readers of `custom_params`, custom logit processors, are refused: nobody would read it.
        return f"custom_params has an unknown key {shown(name)}: known are {', '.join(KNOWN_KEYS)}."
    value = shown(error["input"])
    if name == TRACE:
        return f"{TRACE} is {value}: send true for evidence with every token, or leave it out."
    if error["type"] == "float_type" and not isinstance(error["input"], int):
        return f"{name} is {value}, not a number. Send a number in [-{MAX_ALPHA:g}, {MAX_ALPHA:g}]."
    return f"{name} is {value}: send a finite number in [-{MAX_ALPHA:g}, {MAX_ALPHA:g}]."
