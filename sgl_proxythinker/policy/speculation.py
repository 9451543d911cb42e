"""What of SGLang's arguments doesn't go with drafts: refused where they were asked for, else served without them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import LaunchError

_REFUSED = {
    "enable_mixed_chunk": "a chunk of a prompt and a chain of drafts can't be read in one step",
    "prefill_attention_backend": "chains are read by the backend of prefill, and drafts by that of decode",
    "decode_attention_backend": "chains are read by the backend of prefill, and drafts by that of decode",
}
# Those that read a chain without a mask as what it is, tokens that follow each other, and that can prepare a step while
# the last one runs. flashinfer can't: the plans of its steps pass through one buffer of the host.
_CAUSAL_BACKENDS = ("fa3", "triton")
# On a GPU this one wants chains prepared as on a CPU, which was not tried.
_CAUSAL_ON_CPU = (*_CAUSAL_BACKENDS, "torch_native")
# Allowed at 1, which is what they are without a wish.
_MORE_THAN_ONE = {
    "stream_interval": "SGLang sends at certain numbers of tokens, which a chain may jump over",
}


_LEAVE_ONE_OUT = "Leave one of them out."


class Obstacle(NamedTuple):
    """What keeps a server from speculating."""

    reason: str  # a sentence without its full stop
    way_out: str  # for one who asked for drafts


def _obstacle(given: Mapping[str, Any], attention_backend: str, chooses_drafts: bool, on_cpu: bool) -> Obstacle | None:
    """None: nothing keeps a server with these arguments from it."""
    if attention_backend not in (_CAUSAL_ON_CPU if on_cpu else _CAUSAL_BACKENDS):
        return Obstacle(
            f"--proxy-speculate was not tried with --attention-backend {attention_backend} here, which was asked for "
            "or is what SGLang chooses",
            f"Use one of {', '.join(_CAUSAL_BACKENDS)}, or say --proxy-speculate off.",
        )
    if chooses_drafts and given.get("enable_deterministic_inference"):
        return Obstacle(
            "--enable-deterministic-inference doesn't go with --proxy-speculate auto: whether a token is read alone or "
            "in a chain would depend on the load",
            "Name a number of drafts, or leave one of them out.",
        )
    if str(given.get("kv_cache_dtype") or "").startswith("fp8"):
        return Obstacle(
            f"--kv-cache-dtype {given['kv_cache_dtype']} doesn't go with --proxy-speculate: kernels of a chain round "
            "other numbers than those of a token, so the tokens would be others",
            _LEAVE_ONE_OUT,
        )
    for name, why in _REFUSED.items():
        if given.get(name):
            flag = f"--{name.replace('_', '-')}"
            return Obstacle(f"{flag} doesn't go with --proxy-speculate: {why}", _LEAVE_ONE_OUT)
    for name, why in _MORE_THAN_ONE.items():
        if (given.get(name) or 1) > 1:
            flag = f"--{name.replace('_', '-')} {given[name]}"
            return Obstacle(f"{flag} doesn't go with --proxy-speculate: {why}", _LEAVE_ONE_OUT)
    return None


def settle_speculation(
    config: ProxyConfig, given: Mapping[str, Any], attention_backend: str, on_cpu: bool
) -> tuple[ProxyConfig, str | None]:
    """Drafts that were asked for, or that nobody spoke against, if a server with these arguments can have them.

    Args:
        config: as it was asked for.
        given: SGLang's arguments by field name, as the user gave them.
        attention_backend: that SGLang chose, or the user.
        on_cpu: whether the server runs on a CPU.

    Returns:
        What is served; and why it has no drafts, a sentence without its full stop, where the default had to give way.

    Raises:
        LaunchError: drafts were asked for and can't be; says what to leave out.
    """
    obstacle = _obstacle(given, attention_backend, config.chooses_drafts, on_cpu) if config.drafts else None
    if obstacle is None:
        return config, None
    if config.asks_for_drafts:
        raise LaunchError(f"{obstacle.reason}. {obstacle.way_out}")
    return config.without_drafts(), obstacle.reason
