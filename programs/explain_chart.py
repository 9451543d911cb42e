"""The line chart along an answer, as SVG paths: one unit a token to the right, 0 at the top and 100 at the bottom."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from sgl_proxythinker.programs.explanation import Answer

LOG_2 = math.log(2)


class Chart(BaseModel):
    """Paths of three plots: log probabilities of the tokens, the strength, the disagreement of expert and amateur."""

    model_config = ConfigDict(frozen=True)

    guided: str
    base: str
    pull: str  # the area between the two
    flips: str  # a point at each flipped token, on the guided line
    disagreement: str
    strength: str  # at each token
    strongest: float  # alpha at the top of its plot
    weakest: float  # and at its bottom; 0 lies between


def draw(answer: Answer, lowest_logprob: float) -> Chart:
    """The chart of an answer; `lowest_logprob` is at the bottom, and below it nothing is told apart."""
    guided = [token.fused_logprob / lowest_logprob for token in answer.tokens]
    base = [token.base_logprob / lowest_logprob for token in answer.tokens]
    flips = [depth if token.flipped else None for token, depth in zip(answer.tokens, guided, strict=True)]
    divergences = [token.js_nats for token in answer.tokens]
    alphas = [token.alpha for token in answer.tokens]
    told = [0.0, *(alpha for alpha in alphas if alpha is not None)]
    weakest, strongest = min(told), max(told) if any(told) else 1.0
    return Chart(
        guided=_line(guided),
        base=_line(base),
        pull="M" + " L".join([*_points(guided), *_points(base)[::-1]]) + "Z" if answer.tokens else "",
        flips=" ".join(f"M{point}h0" for point in _points(flips) if point),
        disagreement=_line(None if one is None else 1 - one / LOG_2 for one in divergences),
        strength=_line(None if one is None else (strongest - one) / (strongest - weakest) for one in alphas),
        strongest=strongest,
        weakest=weakest,
    )


def _line(depths: Iterable[float | None]) -> str:
    """A line through the middle of each token, broken where there is no number."""
    path, command = [], "M"
    for point in _points(depths):
        # A zero-length piece, so that a token alone between gaps is a point.
        path += [f"{command}{point}" + ("h0" if command == "M" else "")] if point else []
        command = "L" if point else "M"
    return " ".join(path)


def _points(depths: Iterable[float | None]) -> list[str]:
    """Coordinates of each token's value, from 0 at the top to 1 at the bottom; "" where there is none."""
    return [
        "" if depth is None else f"{place + 0.5:g} {min(100.0, max(0.0, 100 * depth)):.2f}"
        for place, depth in enumerate(depths)
    ]
