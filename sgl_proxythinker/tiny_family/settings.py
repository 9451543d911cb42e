"""What is measured: which model answers, how strongly it is guided, whether it sees the picture, greedy or sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ALPHAS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5)
ANSWER_TOKENS = 192  # of an answer at most
PASS_AT = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Setting:
    """One line of the table of results."""

    name: str
    server: str  # "guided", or the role that a plain server serves
    alpha: float = 0.0
    amateur_alpha: float | None = None  # None: the same as alpha
    blind: bool = False  # the question without its picture
    sampled: bool = False  # temperature 1 and pass@k, instead of greedy

    @property
    def temperature(self) -> float:
        return 1.0 if self.sampled else 0.0

    @property
    def strength(self) -> tuple[float, float]:
        """Weights of expert and amateur."""
        return self.alpha, self.alpha if self.amateur_alpha is None else self.amateur_alpha

    def extra_body(self) -> dict[str, Any]:
        """What a request says beyond OpenAI's fields. A plain server is told no strength."""
        if self.server != "guided":
            return {"return_meta_info": True}
        alpha, amateur_alpha = self.strength
        params = {"proxy_alpha": alpha, "proxy_amateur_alpha": amateur_alpha}
        return {"custom_params": params, "return_meta_info": True}


def _table() -> tuple[Setting, ...]:
    return (
        Setting("base", "guided"),
        *(Setting(f"guided-{alpha:g}", "guided", alpha) for alpha in ALPHAS),
        *(Setting(f"no-amateur-{alpha:g}", "guided", alpha, 0.0) for alpha in ALPHAS),
        Setting("base-blind", "guided", blind=True),
        Setting("guided-0.5-blind", "guided", 0.5, blind=True),
        Setting("base-sampled", "guided", sampled=True),
        Setting("guided-0.5-sampled", "guided", 0.5, sampled=True),
        Setting("expert", "expert"),
        Setting("expert-blind", "expert", blind=True),
        Setting("expert-sampled", "expert", sampled=True),
        Setting("amateur", "amateur"),
        Setting("amateur-sampled", "amateur", sampled=True),
    )


SETTINGS = {setting.name: setting for setting in _table()}
QUICK = ("base", "guided-0.5", "expert")


def choose(names: list[str] | None, sampled: bool) -> list[Setting]:
    """The named settings, or all greedy ones and with `sampled` all others, in the table's order."""
    unknown = set(names or ()) - set(SETTINGS)
    if unknown:
        raise ValueError(f"no setting {', '.join(sorted(unknown))}; there are {', '.join(SETTINGS)}")
    if names:
        return [setting for setting in SETTINGS.values() if setting.name in names]
    return [setting for setting in SETTINGS.values() if sampled or not setting.sampled]
