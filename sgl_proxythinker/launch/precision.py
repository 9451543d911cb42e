"""Bytes of a model's weights as they are loaded: of 16 bits, or of what a quantization makes of its linear layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from sgl_proxythinker.launch.quantization import stored_weights
from sgl_proxythinker.placement import Shape

_WIDE = "float32"
_ALSO_CALLED = {"float": "float32", "half": "float16"}
_16_BITS = 2  # bytes
# A scale for each column or each block of 128 x 128 does not count.
_8_BITS = frozenset(("fp8", "w8a8_fp8", "w8a8_int8"))
# Each group of weights of a column has a scale of 16 bits, and a zero point as wide as a weight.
_IN_GROUPS = frozenset(("awq", "awq_marlin", "gptq", "gptq_marlin"))
# Numbers that SGLang's kernel rounds to 8 bits at once, and rows of a tile of Marlin's, of experts too.
_QUANTIZED_AT_ONCE, _MARLIN_ROWS, _MARLIN_ROWS_OF_EXPERTS = 4, 128, 64
_LEAST_GROUP = 32


def loaded_dtype(asked: str | None, of_checkpoint: str) -> str:
    """The dtype that a model computes in, as SGLang chooses it.

    Args:
        asked: `--dtype`, or the model's own; None: nothing was asked for.
        of_checkpoint: what its config says; empty: nothing.
    """
    if asked in (None, "auto"):
        return "float16" if of_checkpoint in ("", _WIDE) else of_checkpoint
    return _ALSO_CALLED.get(asked, asked)


def loaded_bytes(shape: Shape, quantization: str | None, stored: Mapping[str, Any] | None) -> int:
    """Bytes of all weights of a model, about.

    Embedding, output head and vision tower stay in 16 bits, as in the published checkpoints.

    Args:
        shape: with the bytes of 16 bits, and the dtype that it is loaded in.
        quantization: SGLang's name of what was asked for; None for the checkpoint's.
        stored: the checkpoint's `quantization_config`; None: it has none.

    Returns:
        0 for a quantization whose weights are not known here.
    """
    bits = _bits(quantization, stored or {})
    if bits is None:
        return 0
    if bits == 16:
        return shape.weight_bytes * (2 if shape.dtype == _WIDE else 1)
    return shape.weight_bytes - int(shape.linear_weights * (_16_BITS - bits / 8))


class Parts(NamedTuple):
    """What the columns of a layer are a multiple of on each of several ranks: whole groups or blocks of its weights."""

    heads: int = 1
    kv_heads: int = 1  # whose weights SGLang joins with those of the heads
    mlp: int = 1


def parts_of(quantization: str | None, stored: Mapping[str, Any] | None, has_experts: bool) -> Parts:
    """What a rank of several must have whole.

    Args:
        quantization, stored: as of `loaded_bytes`.
        has_experts: whether the MLPs are experts, whose kernels are others.
    """
    stored = stored or {}
    method = quantization or stored.get("quant_method")
    if method is None:
        return Parts()
    if method == "compressed-tensors":
        each = [_parts_of_weights(weights, weights.get("num_bits"), has_experts) for weights in stored_weights(stored)]
        return Parts(*map(math.lcm, *each)) if len(each) > 1 else each[0] if each else Parts()
    if method in _8_BITS:
        return _parts_of_weights(stored, 8, has_experts)
    parts = _parts_of_weights(stored, stored.get("bits"), has_experts)
    # SGLang halves the groups of experts in AWQ where they are too large for a rank.
    return parts._replace(mlp=_LEAST_GROUP) if has_experts and method in ("awq", "awq_marlin") else parts


def _parts_of_weights(weights: Mapping[str, Any], bits: Any, has_experts: bool) -> Parts:
    block = weights.get("weight_block_size") or weights.get("block_structure")
    if isinstance(block, list) and block and all(isinstance(each, int) and each > 0 for each in block):
        return Parts(max(block), max(block), max(block))
    if bits == 8:
        return Parts(_QUANTIZED_AT_ONCE, 1, _QUANTIZED_AT_ONCE)
    if bits != 4:
        return Parts()
    group = max(1, weights.get("group_size") or 1)
    return Parts(
        math.lcm(_MARLIN_ROWS, group), 1, math.lcm(_MARLIN_ROWS_OF_EXPERTS if has_experts else _MARLIN_ROWS, group)
    )


def _bits(quantization: str | None, stored: Mapping[str, Any]) -> float | None:
    """Of a weight of a linear layer, with its share of scales and zero points; None: not known."""
    method = quantization or stored.get("quant_method")
    if method is None:
        return 16
    if method in _8_BITS:
        return 8
    if method in _IN_GROUPS and "bits" in stored:
        return _with_scales(stored["bits"], stored.get("group_size"), has_zeros=True)
    if method == "compressed-tensors":
        groups = [weights for weights in stored_weights(stored) if weights]
        if len(groups) == 1:
            return _with_scales(
                groups[0]["num_bits"], groups[0].get("group_size"), not groups[0].get("symmetric", True)
            )
    return None


def _with_scales(bits: int, group_size: int | None, has_zeros: bool) -> float:
    if not group_size or group_size < 0:  # one for each column
        return bits
    return bits + (16 + bits * has_zeros) / group_size
