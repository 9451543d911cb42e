"""From a request's `custom_params` to the two weights of the fused distribution, and whether it asks for evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from sgl_proxythinker.errors import RequestError

MAX_ALPHA = 10.0

ALPHA = "proxy_alpha"
AMATEUR_ALPHA = "proxy_amateur_alpha"
TRACE = "proxy_trace"
PREFIX = "proxy_"
KNOWN_KEYS = (ALPHA, AMATEUR_ALPHA, TRACE)


class Strength(NamedTuple):
    """fused = base + expert * expert_logits - amateur * amateur_logits."""

    expert: float
    amateur: float

    @property
    def is_base_alone(self) -> bool:
        return self.expert == 0.0 and self.amateur == 0.0

    def as_params(self) -> dict[str, float]:
        """The same numbers under the names that requests and responses use."""
        return {ALPHA: self.expert, AMATEUR_ALPHA: self.amateur}


def read_strength(custom_params: Any, default_alpha: float) -> Strength:
    """Read one request's strength.

    Args:
        custom_params: the request's `custom_params`, as it came: None or a mapping; keys that don't begin with
            `proxy_` belong to others and are ignored.
        default_alpha: the server's alpha, for requests that name none.

    Raises:
        RequestError: not a mapping, an unknown `proxy_` key, or a value that is not a finite number in [-10, 10].
    """
    if custom_params is None:
        return Strength(default_alpha, default_alpha)
    if not isinstance(custom_params, Mapping):
        raise RequestError(
            f'custom_params is {_shown(custom_params)}, not an object. Send {{"custom_params": {{"{ALPHA}": 0.5}}}}.'
        )
    for key in custom_params:
        if isinstance(key, str) and key.startswith(PREFIX) and key not in KNOWN_KEYS:
            raise RequestError(f"custom_params has an unknown key {key!r}: known are {', '.join(KNOWN_KEYS)}.")
    alpha = _number(custom_params, ALPHA, default_alpha)
    return Strength(alpha, _number(custom_params, AMATEUR_ALPHA, alpha))


def check_keys(custom_params: Any) -> None:
    """Refuse keys that nobody reads: the other reader of `custom_params`, custom logit processors, is refused too.

    Raises:
        RequestError: names the key.
    """
    if isinstance(custom_params, Mapping):
        for key in custom_params:
            if key not in KNOWN_KEYS:
                raise RequestError(
                    f"custom_params has an unknown key {_shown(key)}: known are {', '.join(KNOWN_KEYS)}."
                )


def asks_for_trace(custom_params: Mapping[str, Any] | None) -> bool:
    """Whether the request wants `meta_info["proxy_trace"]`.

    Args:
        custom_params: as `read_strength` admitted them.

    Raises:
        RequestError: its value is neither true nor false.
    """
    value = None if custom_params is None else custom_params.get(TRACE)
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"{TRACE} is {_shown(value)}: send true for evidence with every token, or leave it out.")
    return value is True


def _number(custom_params: Mapping[str, Any], key: str, default: float) -> float:
    value = custom_params.get(key)
    if value is None:
        return default
    # bool is an int to Python; to a person who typed it, it is a mistake.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RequestError(f"{key} is {_shown(value)}, not a number. Send a number in [-{MAX_ALPHA:g}, {MAX_ALPHA:g}].")
    # An int may be too large for float(); comparing is exact.
    if isinstance(value, float) and not math.isfinite(value) or not -MAX_ALPHA <= value <= MAX_ALPHA:
        raise RequestError(f"{key} is {_shown(value)}: send a finite number in [-{MAX_ALPHA:g}, {MAX_ALPHA:g}].")
    return float(value) + 0.0  # -0 is 0


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
