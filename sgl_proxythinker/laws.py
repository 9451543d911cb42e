"""Strengths that change from token to token: what a request writes, and the canonical value that processes compare.

Formulas and sources stand in docs/laws.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sgl_proxythinker.sentences import shown

MAX_ALPHA = 10.0
MAX_POINTS = 32  # of a schedule
MAX_MARKER_BYTES = 64  # of a text in UTF-8 after which a strength changes
_MAX_TOKENS = 10_000_000
_MAX_NATS = 1e3  # of an entropy: above any vocabulary's

Weight = Annotated[float, Field(ge=-MAX_ALPHA, le=MAX_ALPHA, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, le=_MAX_TOKENS)]


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DivergenceLaw(_Written):
    """scale * clamp(JS(expert, amateur) - JS(base, amateur), low, high), in nats, after warm-up at `proxy_alpha`."""

    kind: Literal["divergence"]
    scale: Weight = 1.0
    low: Weight = 0.0
    high: Weight = 1.0
    warmup_tokens: _Count = 5

    @model_validator(mode="after")
    def _in_order(self) -> DivergenceLaw:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}: send a low that is not above high")
        return self


class EntropyLaw(_Written):
    """The strength where the base's entropy is above so many nats, else the base alone."""

    kind: Literal["entropy"]
    above: Annotated[float, Field(ge=-_MAX_NATS, le=_MAX_NATS, allow_inf_nan=False)]


class MarkerLaw(_Written):
    """The strength of every token after a text that was generated."""

    text: str
    alpha: Weight

    @field_validator("text")
    @classmethod
    def _is_kept_whole(cls, text: str) -> str:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise ValueError("it has half of a character: send a text that UTF-8 can write") from None
        if not 0 < size <= MAX_MARKER_BYTES:
            raise ValueError(f"it has {size} bytes in UTF-8: send a text of 1 to {MAX_MARKER_BYTES}")
        return text


class ScheduleLaw(_Written):
    """The strength by the number of generated tokens: linear between points, constant before and after them.

    After a marker it is another one. Without points the constant strength counts before it.
    """

    kind: Literal["schedule"]
    points: Annotated[list[tuple[_Count, Weight]], Field(min_length=1, max_length=MAX_POINTS)] | None = None
    after: MarkerLaw | None = None

    # JSON has lists where this has pairs.
    model_config = ConfigDict(extra="forbid", strict=False, frozen=True)

    @model_validator(mode="after")
    def _in_order(self) -> ScheduleLaw:
        if self.points is None and self.after is None:
            raise ValueError("it has neither points nor after: send one of them, or both")
        tokens = [count for count, _ in self.points or []]
        if any(later <= earlier for earlier, later in zip(tokens, tokens[1:], strict=False)):
            raise ValueError("its points are not in order: send numbers of tokens that grow")
        return self


_AnyLaw = DivergenceLaw | EntropyLaw | ScheduleLaw
_OneLaw = Annotated[_AnyLaw, Field(discriminator="kind")]
_KINDS = [get_args(law.model_fields["kind"].annotation)[0] for law in get_args(_AnyLaw)]


class Divergence(NamedTuple):
    scale: float
    low: float  # nats, as `high`
    high: float
    warmup_tokens: int


class Marker(NamedTuple):
    text: str
    alpha: float  # the strength of every token after it


class Law(NamedTuple):
    """How the strength of a request changes from token to token; what is None does not change it."""

    schedule: tuple[tuple[int, float], ...] | None = None  # tokens and strength, in order
    divergence: Divergence | None = None
    entropy_above: float | None = None  # nats
    after: Marker | None = None  # over the schedule, or over the constant strength

    @classmethod
    def of_carried(cls, value: Any) -> Law | None:
        """From what a scheduler got: of msgpack's, tuples have become lists."""
        if value is None:
            return None
        schedule, divergence, entropy_above, after = value
        points = None if schedule is None else tuple((tokens, alpha) for tokens, alpha in schedule)
        return cls(
            points,
            None if divergence is None else Divergence(*divergence),
            entropy_above,
            None if after is None else Marker(*after),
        )

    @property
    def replaces_alpha(self) -> bool:
        """At some tokens the strength is the law's own, not `proxy_alpha` or none."""
        return self.schedule is not None or self.divergence is not None or self.after is not None

    def may_steer(self, alpha: float) -> bool:
        """Whether a token's strength may be other than 0. `alpha`: the constant one."""
        if self.after is not None and self.after.alpha:
            return True
        if self.schedule is not None:
            return any(strength for _, strength in self.schedule)
        return bool(alpha) or (self.divergence is not None and bool(self.divergence.scale))

    def as_params(self) -> list[dict[str, Any]]:
        """As requests write it."""
        told: list[dict[str, Any]] = []
        if self.schedule is not None or self.after is not None:
            points = {} if self.schedule is None else {"points": [list(point) for point in self.schedule]}
            after = {} if self.after is None else {"after": self.after._asdict()}
            told.append({"kind": "schedule", **points, **after})
        if self.divergence is not None:
            told.append({"kind": "divergence", **self.divergence._asdict()})
        if self.entropy_above is not None:
            told.append({"kind": "entropy", "above": self.entropy_above})
        return told


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class _Laws(BaseModel):
    proxy_law: Annotated[list[_OneLaw], Field(max_length=3)]


def read_law(value: Any) -> Law | None:
    """A law from what a request or a settings file writes: one object, or a list of them; None: a constant strength.

    Raises:
        pydantic.ValidationError: an unknown name, or a value out of range.
        ValueError: what is no object, an unknown kind, or two laws that exclude each other; the sentence says which.
    """
    for one in _as_list(value):
        if not isinstance(one, dict):
            raise ValueError(f'it has {shown(one)}: send an object such as {{"kind": "entropy", "above": 0.7}}')
        if one.get("kind") not in _KINDS:
            raise ValueError(f"its kind is {shown(one.get('kind'))}: there are {', '.join(_KINDS)}")
    laws = _Laws.model_validate({"proxy_law": _as_list(value)}).proxy_law
    schedule, divergence, entropy = (_only(laws, kind) for kind in (ScheduleLaw, DivergenceLaw, EntropyLaw))
    if schedule is not None and divergence is not None:
        raise ValueError("a schedule and a divergence both say the strength: send one of them")
    points, after = (None, None) if schedule is None else (schedule.points, schedule.after)
    law = Law(
        None if points is None else tuple((tokens, strength + 0.0) for tokens, strength in points),
        None
        if divergence is None
        else Divergence(divergence.scale, divergence.low, divergence.high, divergence.warmup_tokens),
        None if entropy is None else entropy.above,
        None if after is None else Marker(after.text, after.alpha + 0.0),
    )
    return law if any(part is not None for part in law) else None


def _only(laws: Sequence[Any], kind: type) -> Any:
    found: list[Any] = [law for law in laws if isinstance(law, kind)]
    if len(found) > 1:
        raise ValueError(f"there are {len(found)} laws of kind {found[0].kind}: send one")
    return found[0] if found else None
