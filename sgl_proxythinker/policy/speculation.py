"""What a server that speculates refuses of SGLang's arguments, beside what every guided server does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgl_proxythinker.errors import LaunchError

_REFUSED = {
    "enable_mixed_chunk": "a chunk of a prompt and a chain of drafts can't be read in one step",
    "prefill_attention_backend": "chains are read by the backend of prefill, and drafts by that of decode",
    "decode_attention_backend": "chains are read by the backend of prefill, and drafts by that of decode",
}
# Those that read a chain without a mask as what it is, tokens that follow each other, and that can prepare a step while
# the last one runs. flashinfer can't: the plans of its steps pass through one buffer of the host.
_CAUSAL_BACKENDS = ("fa3", "triton", "torch_native")
# Allowed at 1, which is what they are without a wish.
_MORE_THAN_ONE = {
    "stream_interval": "SGLang sends at certain numbers of tokens, which a chain may jump over",
}


def check_speculation(given: Mapping[str, Any], attention_backend: str, chooses_drafts: bool) -> None:
    """Raise unless a server with these arguments can speculate.

    Args:
        given: SGLang's arguments by field name, as the user gave them.
        attention_backend: that SGLang chose, or the user.
        chooses_drafts: by what it sees (`auto`).

    Raises:
        LaunchError: they can't; says what to leave out.
    """
    if attention_backend not in _CAUSAL_BACKENDS:
        raise LaunchError(
            f"--proxy-speculate was not tried with --attention-backend {attention_backend}, which was asked for or is "
            f"what SGLang chooses here. Use one of {', '.join(_CAUSAL_BACKENDS[:-1])}, or leave --proxy-speculate out."
        )
    if chooses_drafts and given.get("enable_deterministic_inference"):
        raise LaunchError(
            "--enable-deterministic-inference doesn't go with --proxy-speculate auto: whether a token is read alone or "
            "in a chain would depend on the load. Name a number of drafts, or leave one of them out."
        )
    if str(given.get("kv_cache_dtype") or "").startswith("fp8"):
        raise LaunchError(
            f"--kv-cache-dtype {given['kv_cache_dtype']} doesn't go with --proxy-speculate: kernels of a chain round "
            "other numbers than those of a token, so the tokens would be others. Leave one of them out."
        )
    for name, why in _REFUSED.items():
        if given.get(name):
            flag = f"--{name.replace('_', '-')}"
            raise LaunchError(f"{flag} doesn't go with --proxy-speculate: {why}. Leave one of them out.")
    for name, why in _MORE_THAN_ONE.items():
        if (given.get(name) or 1) > 1:
            flag = f"--{name.replace('_', '-')} {given[name]}"
            raise LaunchError(f"{flag} doesn't go with --proxy-speculate: {why}. Leave one of them out.")
