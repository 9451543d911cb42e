"""In which precisions a model may be served, and whether SGLang reads a quantized checkpoint as it was written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.policy.server_arguments import LIMITS
from sgl_proxythinker.roles import BASE, Role

# Of SGLang's `--quantization`, and of checkpoints.
METHODS = LIMITS["quantization"].allowed
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def check_quantization(
    role: Role, path: str, asked: str | None, stored: Mapping[str, Any] | None, tower: tuple[str, ...]
) -> None:
    """Refuse what was not tried, and a checkpoint whose vision tower SGLang would take to be quantized where it isn't.

    Args:
        asked: the `quantization` of this model, if any.
        stored: its `quantization_config`, if any.
        tower: linear layers of its tower that SGLang quantizes unless they are left out, by its names.

    Raises:
        LaunchError: says of which model, and what to do.
    """
    # The base's is a flag, which is checked with the flags.
    if role != BASE and asked is not None and asked not in METHODS:
        raise LaunchError(
            f"--proxy-config asks for the {role} with quantization {asked!r}: guidance was built for "
            f"{', '.join(METHODS)}. Use one of them, or leave it out."
        )
    if stored is None:
        return
    method = str(stored.get("quant_method"))
    if method not in METHODS:
        raise LaunchError(
            f"the {role} {path!r} is quantized by {method!r}: guidance was built for {', '.join(METHODS)}. Use a "
            "checkpoint in one of them, or in 16 bits."
        )
    if quantized := [layer for layer in tower if not _is_left_out(layer, method, stored)]:
        # In 4 bits nobody quantizes a tower; in 8 all of it may be.
        if method in ("awq", "gptq") or len(quantized) < len(tower):
            raise LaunchError(
                f"the {role} {path!r} is quantized by {method!r}, and SGLang would take {quantized[0]} of its vision "
                f"tower to be quantized too. If the tower is in 16 bits, add {_HINTS[method]} to quantization_config "
                "in its config.json."
            )


def described(asked: str | None, stored: Mapping[str, Any] | None) -> str:
    """For a line of the doctor."""
    if stored is not None:
        return f"stored by {stored.get('quant_method')}" + (f", asked for as {asked}" if asked else "")
    return f"made {asked} while it is loaded" if asked else "not quantized"


_HINTS = {
    "awq": '"modules_to_not_convert": ["visual"]',
    "gptq": '"dynamic": {"-:.*visual.*": {}}',
    "fp8": '"modules_to_not_convert": ["visual", "lm_head"]',
}


def _is_left_out(layer: str, method: str, stored: Mapping[str, Any]) -> bool:
    """By the rules of SGLang 0.5.17, which differ; tests/test_quantized.py compares with its own functions."""
    match method:
        case "awq":
            return any(name in layer for name in stored.get("modules_to_not_convert") or ())
        case "gptq":
            for rule in stored.get("dynamic") or {}:
                if re.match(rule.removeprefix("-:").removeprefix("+:"), layer):
                    return rule.startswith("-:")
            return False
        case "fp8":
            names = stored.get("ignored_layers") or stored.get("modules_to_not_convert") or ()
            return all(
                any(f".{name.removeprefix('model.')}." in f".{part}." for name in names) for part in _parts(layer)
            )
    return True  # of compressed-tensors SGLang knows the names of all layers, and whole expressions


def _parts(layer: str) -> list[str]:
    """The layers of a checkpoint that SGLang looks for among names left out, where it has made one of them."""
    stem, _, last = layer.rpartition(".")
    return [f"{stem}.{part}" for part in _FUSED.get(last, (last,))]
