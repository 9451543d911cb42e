"""In which precisions a model may be served, and whether SGLang reads a quantized checkpoint as it was written."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from transformers.utils import cached_file

from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.policy.server_arguments import LIMITS
from sgl_proxythinker.roles import BASE, Role

logger = logging.getLogger(__name__)

# Of SGLang's `--quantization`, and of checkpoints.
METHODS = LIMITS["quantization"].allowed
AT_LOAD = "fp8"  # the one that SGLang makes of 16 bits while it loads them
_MARLIN = {"awq_marlin": "awq", "gptq_marlin": "gptq"}
_BITS, _GROUPS = 4, (-1, 32, 64, 128)  # of AWQ and GPTQ
_16_BITS = ("bfloat16", "float16")
# Of compressed-tensors, and bits of a weight; others are read by kernels that were not tried.
_FORMATS = {"pack-quantized": ("int", (4,)), "float-quantized": ("float", (8,))}
_EXPRESSION = "re:"  # before an expression among its names
_MODELOPT = "hf_quant_config.json"
_LEFT_OUT = ("ignore", "ignored_layers", "modules_to_not_convert")
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


class _Weights(BaseModel):
    model_config = ConfigDict(strict=True)

    num_bits: int
    type: str = "int"
    group_size: int | None = None
    symmetric: bool = True


class _Group(BaseModel):
    model_config = ConfigDict(strict=True)

    weights: _Weights | None = None


class _Stored(BaseModel):
    """The fields of `quantization_config` that are read here; others are SGLang's."""

    model_config = ConfigDict(extra="allow", strict=True)

    quant_method: str
    bits: int | None = None
    group_size: int | None = None
    desc_act: bool | None = None
    modules_to_not_convert: list[str] | None = None
    ignored_layers: list[str] | None = None
    ignore: list[str] | None = None
    dynamic: dict[str, Any] | None = None
    format: str | None = None
    config_groups: dict[str, _Group] | None = None

    @field_validator("dynamic")
    @classmethod
    def _are_patterns(cls, rules: dict[str, Any] | None) -> dict[str, Any] | None:
        for rule in rules or {}:
            _check_pattern(rule, _pattern(rule))
        return rules

    @field_validator("ignore")
    @classmethod
    def _are_names_or_patterns(cls, names: list[str] | None) -> list[str] | None:
        for name in names or ():
            if name.startswith(_EXPRESSION):
                _check_pattern(name, name.removeprefix(_EXPRESSION))
        return names


def _check_pattern(rule: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{rule!r} is no pattern: {error}") from None


def read_stored(role: Role, path: str, revision: str | None, config: Any) -> Mapping[str, Any] | None:
    """How a checkpoint is quantized: its `quantization_config`; None: it is not.

    Args:
        config: the checkpoint's, of transformers.

    Raises:
        LaunchError: it has other types than those formats have, or stands where it would be read over here.
    """
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        for place, holder in (("text_config", config.get_text_config()), ("config.json", config)):
            for name in ("quantization_config", "compression_config"):
                if getattr(holder, name, None) is not None:
                    raise LaunchError(
                        f"the {role} {path!r} has its quantization as {name} in {place}: move it to "
                        "quantization_config at the top of config.json."
                    )
        if _has(path, _MODELOPT, revision):
            raise LaunchError(
                f"the {role} {path!r} is quantized by ModelOpt ({_MODELOPT}): guidance was built for "
                f"{', '.join(METHODS)}. Use a checkpoint in one of them, or in 16 bits."
            )
        return None
    try:
        _Stored.model_validate(stored)
    except ValidationError as problem:
        item = problem.errors(include_url=False)[0]
        name = ".".join(map(str, item["loc"])) or "quantization_config"
        raise LaunchError(
            f"the {role} {path!r} has a quantization_config that can't be read: {name}: {item['msg']}. Use a "
            "checkpoint as its quantizer wrote it."
        ) from None
    return stored


def _has(path: str, file: str, revision: str | None) -> bool:
    try:
        return cached_file(path, file, revision=revision or "main") is not None
    except OSError:  # transformers': of a folder and of the hub, if it can be asked
        return False


def check_quantization(
    role: Role, path: str, asked: str | None, dtype: str, stored: Mapping[str, Any] | None, tower: tuple[str, ...]
) -> None:
    """Refuse what was not tried, and a checkpoint whose vision tower SGLang would take to be quantized where it isn't.

    Args:
        asked: the `quantization` of this model, if any.
        dtype: of what is not quantized, such as "bfloat16".
        stored: of `read_stored`.
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
    if dtype not in _16_BITS and (asked or stored) is not None:
        raise LaunchError(
            f"the {role} {path!r} is quantized and asked for in {dtype}, and kernels of quantized models take 16 bits: "
            "say dtype bfloat16 or float16."
        )
    if stored is None:
        if asked not in (None, AT_LOAD):
            raise LaunchError(
                f"the {role} {path!r} is in 16 bits and asked for with quantization {asked!r}, which has to be stored: "
                f"use a checkpoint that is quantized so, {AT_LOAD}, which is made while weights are loaded, or none."
            )
        return
    method = str(stored["quant_method"])
    if method in METHODS and asked is not None and _MARLIN.get(asked, asked) != method:
        raise LaunchError(
            f"the {role} {path!r} is quantized by {method!r} and asked for with quantization {asked!r}: leave that out."
        )
    if asked in ("awq", "gptq") and dtype == "bfloat16":
        raise LaunchError(
            f"the {role} is asked for with quantization {asked!r}, whose kernels take float16 only: leave it out "
            f"(SGLang takes {asked}_marlin then), or say dtype float16."
        )
    if problem := _untried(method, stored):
        raise LaunchError(f"the {role} {path!r} is quantized by {method!r} {problem}.")
    if method not in METHODS:
        raise LaunchError(
            f"the {role} {path!r} is quantized by {method!r}: guidance was built for {', '.join(METHODS)}. Use a "
            "checkpoint in one of them, or in 16 bits."
        )
    if quantized := [layer for layer in tower if not _is_left_out(layer, method, stored)]:
        # In 4 bits nobody quantizes a tower; in 8 all of it may be, unless somebody meant to leave it out.
        is_in_4_bits = method in ("awq", "gptq") or stored.get("format") == "pack-quantized"
        is_named = any("visual" in name for field in _LEFT_OUT for name in stored.get(field) or ())
        if is_in_4_bits or is_named or len(quantized) < len(tower):
            raise LaunchError(
                f"the {role} {path!r} is quantized by {method!r}, and SGLang would take {quantized[0]} of its vision "
                f"tower to be quantized too. If the tower is in 16 bits, add {_HINTS[method]} to quantization_config "
                "in its config.json."
            )


def quantizes_tower(asked: str | None, stored: Mapping[str, Any] | None, tower: tuple[str, ...]) -> bool:
    """Whether SGLang has layers of a model's vision tower in the precision of its decoder.

    Args:
        asked, stored, tower: as of `check_quantization`.
    """
    if stored is None:
        return asked is not None and bool(tower)
    return any(not _is_left_out(layer, str(stored["quant_method"]), stored) for layer in tower)


def check_experts(role: Role, path: str, asked: str | None, stored: Mapping[str, Any] | None) -> None:
    """Refuse a quantized mixture of experts that would answer wrongly, and say of others that none was tried.

    Raises:
        LaunchError: it is quantized by GPTQ, or by compressed-tensors in an order of its inputs.
    """
    method = asked or (stored or {}).get("quant_method")
    if method in ("gptq", "gptq_marlin"):
        raise LaunchError(
            f"the {role} {path!r} is a mixture of experts quantized by {method!r}, whose scales SGLang 0.5.17 divides "
            "wrongly among ranks: use a checkpoint in 16 bits, or in fp8."
        )
    orders = {weights.get("actorder") for weights in stored_weights(stored)}
    if not orders <= {None, "static"}:
        raise LaunchError(
            f"the {role} {path!r} is a mixture of experts quantized with actorder {min(map(str, orders - {None}))!r}, "
            "whose scales SGLang 0.5.17 divides wrongly among ranks: use one without it, in 16 bits, or in fp8."
        )
    if method is not None:
        logger.warning(
            "proxythinker: the %s is a mixture of experts quantized by %r; tokens of such a one were never compared "
            "with those of a plain loop over three models, so look at some of yours before you rely on them",
            role, method,
        )  # fmt: skip


def stored_weights(stored: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """How compressed-tensors has the weights of each group of layers; [] of other formats."""
    return [group.get("weights") or {} for group in ((stored or {}).get("config_groups") or {}).values()]


def check_keys(server_args: Any, dtypes: Mapping[Role, str]) -> None:
    """Refuse keys and values in 8 bits (`--kv-cache-dtype`) that FlashAttention 3 can't read for these models.

    It reads `fp8_e4m3`, and what it writes then is bfloat16, whatever a model computes in.

    Args:
        server_args: with the attention that SGLang chose.
        dtypes: that each model computes in, such as "bfloat16".

    Raises:
        LaunchError: says what to ask for instead.
    """
    kept, usual = server_args.kv_cache_dtype, server_args.attention_backend
    backends = {server_args.prefill_attention_backend or usual, server_args.decode_attention_backend or usual}
    if "fa3" not in backends or not kept.startswith("fp8"):
        return
    if kept != "fp8_e4m3":
        raise LaunchError(
            f"--kv-cache-dtype {kept} can't be read by FlashAttention 3 (fa3): say fp8_e4m3, or "
            "--attention-backend triton for prompts and steps."
        )
    if others := [f"the {role} in {dtype}" for role, dtype in dtypes.items() if dtype != "bfloat16"]:
        raise LaunchError(
            f"--kv-cache-dtype {kept}: FlashAttention 3 (--attention-backend fa3, SGLang's choice on Hopper) writes "
            f"bfloat16 then, and {' and '.join(others)} can't read that. Say --dtype bfloat16, or --attention-backend "
            "triton."
        )


def _untried(method: str, stored: Mapping[str, Any]) -> str | None:
    """What of a checkpoint in a known format was not tried."""
    method = _MARLIN.get(method, method)
    if method in ("awq", "gptq") and stored.get("bits") != _BITS:
        return f"with {stored.get('bits')} bits: guidance was built for {_BITS}"
    if method in ("awq", "gptq") and stored.get("group_size") not in _GROUPS:
        sizes = ", ".join(map(str, _GROUPS))
        return f"with a group_size of {stored.get('group_size')}: SGLang's fast kernels (Marlin) have {sizes}"
    if method == "gptq" and stored.get("sym") is not True:
        return "and not symmetric (sym true), which SGLang's fast kernel (Marlin) has to be told: it was not tried"
    if method == "awq" and stored.get("zero_point") is not True:
        return "without zero points (zero_point true), which was not tried"
    if method == "awq" and str(stored.get("version", "gemm")).lower() != "gemm":
        return (
            f"in the version {stored['version']!r}: guidance was built for 'gemm', whose weights are stored otherwise"
        )
    if method == "gptq" and _asks_desc_act(stored):
        others = ", ".join(sorted({*METHODS} - {"gptq", *_MARLIN}))
        return (
            "with desc_act, whose tokens were never compared with the oracle's: use a checkpoint quantized without it "
            f"(desc_act false), in another format ({others}), or in 16 bits"
        )
    if method == "compressed-tensors":
        form, weights = stored.get("format"), stored_weights(stored)
        kind, bits = _FORMATS.get(str(form), ("", ()))
        if not weights or any(each.get("type", "int") != kind or each.get("num_bits") not in bits for each in weights):
            return (
                f"as {form}: guidance was built for pack-quantized with integers of 4 bits and float-quantized with "
                "numbers of 8"
            )
        if wrong := [each["group_size"] for each in weights if each.get("group_size") not in (None, *_GROUPS)]:
            return (
                f"with a group_size of {wrong[0]}: SGLang's fast kernels (Marlin) have {', '.join(map(str, _GROUPS))}"
            )
        if any(each.get("actorder") in ("group", "dynamic", True) for each in weights):
            return "with an order of its inputs by groups (actorder), which is desc_act under another name: not tried"
    return None


def _asks_desc_act(stored: Mapping[str, Any]) -> bool:
    """Of all layers, or of some by a rule of GPTQModel's: its fields count in the place of the checkpoint's."""
    rules = (stored.get("dynamic") or {}).values()
    return any(isinstance(fields, Mapping) and fields.get("desc_act") for fields in (stored, *rules))


def described(asked: str | None, stored: Mapping[str, Any] | None) -> str:
    """For a line of the doctor."""
    if stored is not None:
        return f"stored by {stored.get('quant_method')}" + (f", asked for as {asked}" if asked else "")
    return f"made {asked} while it is loaded" if asked else "not quantized"


_HINTS = {
    "awq": '"modules_to_not_convert": ["visual"]',
    "gptq": '"dynamic": {"-:.*visual.*": {}}',
    "fp8": '"modules_to_not_convert": ["visual", "lm_head"]',
    "compressed-tensors": '"ignore": ["re:visual.*", "lm_head"]',
}


def _is_left_out(layer: str, method: str, stored: Mapping[str, Any]) -> bool:
    """By the rules of SGLang 0.5.17, which differ; tests/test_quantized.py compares with its own functions."""
    match method:
        case "awq":
            return any(name in layer for name in stored.get("modules_to_not_convert") or ())
        case "gptq":
            for rule in stored.get("dynamic") or {}:
                if re.match(_pattern(rule), layer):
                    return rule.startswith("-:")
            return False
        case "fp8":
            names = stored.get("ignored_layers") or stored.get("modules_to_not_convert") or ()
            return all(
                any(f".{name.removeprefix('model.')}." in f".{part}." for name in names) for part in _parts(layer)
            )
        case "compressed-tensors":
            names = [_as_sglang_names(name) for name in stored.get("ignore") or ()]
            parts = _parts(layer) if layer.endswith(".gate_up_proj") and layer not in names else [layer]
            return all(any(_is_named(part, name) for name in names) for part in parts)
    return True


def _as_sglang_names(layer: str) -> str:
    """A layer's name in a checkpoint, or an expression for some, as SGLang 0.5.17 maps those of Qwen2.5-VL."""
    mapped = layer.replace("attn.qkv", "attn.qkv_proj", 1)
    return "visual." + mapped.removeprefix("model.visual.") if mapped.startswith("model.visual.") else mapped


def _is_named(layer: str, name: str) -> bool:
    if name.startswith(_EXPRESSION):
        return re.match(name.removeprefix(_EXPRESSION), layer) is not None
    return layer == name or layer.endswith(f".{name}")


def _pattern(rule: str) -> str:
    return rule.removeprefix("-:").removeprefix("+:")


def _parts(layer: str) -> list[str]:
    """The layers of a checkpoint that SGLang looks for among names left out, where it has made one of them."""
    stem, _, last = layer.rpartition(".")
    return [f"{stem}.{part}" for part in _FUSED.get(last, (last,))]
