"""What is measured: which model answers, how strongly it is guided, whether it sees the picture, greedy or sampled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

ALPHAS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5)
ANSWER_TOKENS = 192  # of an answer at most
PASS_AT = (1, 2, 4, 8, 16)
CONSTANT = "guided-0.5"  # what laws are measured against

# Laws of strength that were tried (docs/laws.md). Which of each kind is taken to the test split is for the validation
# split to say.
NATS = (0.1, 0.3, 0.6, 0.9, 1.2)
SCALES = (1.0, 3.0, 10.0)
CLIPS = (1.0, 2.0, 4.0, 8.0)
SHARES = (0.03, 0.1, 0.3, 0.9)  # of the base's best probability, below which an id can't be drawn
MIN_PS = (0.03, 0.1, 0.3)  # the same of the fused probabilities: SGLang's own cut
SCHEDULES: dict[str, tuple[tuple[int, float], ...]] = {
    "first-token": ((0, 0.5), (1, 0.0)),
    "first-token-at-1": ((0, 1.0), (1, 0.0)),
    "down-in-8": ((0, 1.0), (8, 0.0)),
    "down-in-64": ((0, 1.0), (64, 0.0)),
    "up-in-8": ((0, 0.0), (8, 1.0)),
    "up-in-64": ((0, 0.0), (64, 1.0)),
    "all-but-first-token": ((0, 0.0), (1, 0.5)),
}
# A text, the constant strength before it and the one after it. A thought stands between <think> and </think>.
MARKERS: dict[str, tuple[str, float, float]] = {
    "think-to-0": ("<think>", 0.5, 0.0),
    "think-to-1": ("<think>", 0.5, 1.0),
    "think-from-1-to-0": ("<think>", 1.0, 0.0),
    "think-from-1-to-0.5": ("<think>", 1.0, 0.5),
    "thought-to-0": ("</think>", 0.5, 0.0),
    "thought-from-1-to-0": ("</think>", 1.0, 0.0),
}


@dataclass(frozen=True)
class Setting:
    """One line of the table of results."""

    name: str
    server: str  # "guided", or the role that a plain server serves
    alpha: float = 0.0
    amateur_alpha: float | None = None  # None: the same as alpha
    blind: bool = False  # the question without its picture
    sampled: bool = False  # temperature 1 and pass@k, instead of greedy
    law: tuple[dict[str, Any], ...] = ()  # `proxy_law`
    clip: float | None = None  # `proxy_clip`
    plausible: float | None = None  # `proxy_plausible`
    min_p: float | None = None  # SGLang's `min_p`; greedy it does nothing
    expert: str | None = None  # `proxy_expert`
    experts: tuple[tuple[str, float], ...] = ()  # `proxy_experts`, with a strength each, in place of `alpha`

    @property
    def temperature(self) -> float:
        return 1.0 if self.sampled else 0.0

    @property
    def traced(self) -> bool:
        """Its answers are asked for the strength of each token."""
        return bool(self.law) or self.clip is not None

    @property
    def strength(self) -> tuple[float, float] | tuple[None, None]:
        """Weights of expert and amateur; those of points are their own, and those of several experts each one's."""
        if self.experts or any("points" in law for law in self.law):
            return None, None
        return self.alpha, self.alpha if self.amateur_alpha is None else self.amateur_alpha

    def extra_body(self) -> dict[str, Any]:
        """What a request says beyond OpenAI's fields. A plain server is told no strength."""
        if self.server != "guided":
            return {"return_meta_info": True}
        alpha, amateur_alpha = self.strength
        params: dict[str, Any] = {"proxy_alpha": alpha, "proxy_amateur_alpha": amateur_alpha}
        if self.traced:
            params = {"proxy_trace": True}
            params |= {} if alpha is None else {"proxy_alpha": alpha}
            params |= {"proxy_law": list(self.law)} if self.law else {}
            params |= {} if self.clip is None else {"proxy_clip": self.clip}
        params |= {} if self.plausible is None else {"proxy_plausible": self.plausible}
        if self.experts:
            params = {"proxy_experts": dict(self.experts)}
        elif self.expert is not None:
            params |= {"proxy_expert": self.expert}
        fields = {} if self.min_p is None else {"min_p": self.min_p}
        return {"custom_params": params, "return_meta_info": True, **fields}


def _table() -> tuple[Setting, ...]:
    return (
        Setting("base", "guided"),
        *(Setting(f"guided-{alpha:g}", "guided", alpha) for alpha in ALPHAS),
        *(Setting(f"no-amateur-{alpha:g}", "guided", alpha, 0.0) for alpha in ALPHAS),
        Setting("base-blind", "guided", blind=True),
        Setting("guided-0.5-blind", "guided", 0.5, blind=True),
        Setting("base-sampled", "guided", sampled=True),
        Setting("guided-0.5-sampled", "guided", 0.5, sampled=True),
        *(Setting(f"specialist-guided-{alpha:g}", "guided", alpha, expert="specialist") for alpha in (0.25, 0.5, 1.0)),
        Setting("both-guided-0.25", "guided", experts=(("expert", 0.25), ("specialist", 0.25))),
        Setting("expert", "expert"),
        Setting("expert-blind", "expert", blind=True),
        Setting("expert-sampled", "expert", sampled=True),
        Setting("specialist", "specialist"),
        Setting("amateur", "amateur"),
        Setting("amateur-sampled", "amateur", sampled=True),
    )


def _laws() -> Iterator[Setting]:
    """Greedy settings whose strength changes from token to token, whose differences are clipped, or that draw less."""
    for alpha in (0.5, 1.0):
        at = "" if alpha == 0.5 else f"-at-{alpha:g}"
        for above in NATS:
            law = {"kind": "entropy", "above": above}
            yield Setting(f"entropy-{above:g}{at}", "guided", alpha, law=(law,))
        for clip in CLIPS:
            yield Setting(f"clip-{clip:g}{at}", "guided", alpha, clip=clip)
        for share in SHARES:
            yield Setting(f"plausible-{share:g}{at}", "guided", alpha, plausible=share)
    yield Setting("plausible-0.1-at-0", "guided", plausible=0.1)  # the cut alone; greedy it is the base
    for warmup in (0, 5):
        for scale in SCALES:
            law = {"kind": "divergence", "scale": scale, "warmup_tokens": warmup}
            yield Setting(f"divergence-{scale:g}{'' if warmup else '-cold'}", "guided", 0.5, law=(law,))
    for name, points in SCHEDULES.items():
        law = {"kind": "schedule", "points": [list(point) for point in points]}
        yield Setting(f"schedule-{name}", "guided", law=(law,))
    for name, (text, before, after) in MARKERS.items():
        law = {"kind": "schedule", "after": {"text": text, "alpha": after}}
        yield Setting(f"marker-{name}", "guided", before, law=(law,))


LAWS = tuple(_laws())
CONSTANTS = tuple(Setting(f"guided-{alpha:g}", "guided", alpha) for alpha in ALPHAS)
CUTS = tuple(Setting(f"min-p-{share:g}-at-1-sampled", "guided", 1.0, sampled=True, min_p=share) for share in MIN_PS)
SETTINGS = {setting.name: setting for setting in (*_table(), *LAWS, *CUTS)} | {
    f"{setting.name}-sampled": replace(setting, name=f"{setting.name}-sampled", sampled=True)
    for setting in (*CONSTANTS, *LAWS)
}
QUICK = ("base", "guided-0.5", "expert")


def choose(names: list[str] | None, sampled: bool) -> list[Setting]:
    """The named settings, or all greedy ones without laws and with `sampled` the sampled ones, in the table's order."""
    unknown = set(names or ()) - set(SETTINGS)
    if unknown:
        raise ValueError(f"no setting {', '.join(sorted(unknown))}; there are {', '.join(SETTINGS)}")
    if names:
        return [setting for setting in SETTINGS.values() if setting.name in names]
    return [setting for setting in _table() if sampled or not setting.sampled]
