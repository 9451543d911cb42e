"""Small quantized checkpoints in the published formats, and the exact weights that they stand for.

As in the published checkpoints of Qwen2.5-VL the decoder's linear layers are quantized; the vision tower, embedding,
norms and `lm_head` stay in 16 bits. Rounding is to the nearest, without calibration: what a kernel makes of the bits is
tested, not how good they are. Formats of compressed-tensors are written by its own library.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from sgl_proxythinker.programs.random_models.size import Size
from sgl_proxythinker.programs.reference_hf import CachedModel, Reference, load_checkpoint

GROUP = BLOCK = 128
E4M3 = torch.finfo(torch.float8_e4m3fn)
# Widths that kernels take, also half of them: multiples of 128 for each of two ranks. The small models' keys are 64
# wide there, so for blocks of 128 they have one rank.
BASE_SIZE = Size(layers=3, heads=8, kv_heads=4, head_dim=64, mlp=512)
SMALL_SIZE = Size(layers=3, heads=4, kv_heads=2, head_dim=64, mlp=256)

# Names of a flat Qwen2.5-VL checkpoint.
_LINEAR = re.compile(r"model\.layers\.\d+\..*_proj")
_TOWERS = re.compile(r"visual\..*(qkv|proj|mlp\.\d)")


class Layer(NamedTuple):
    """One linear layer as a format holds it."""

    stored: dict[str, torch.Tensor]  # by the end of their names
    exact: torch.Tensor  # [outputs, inputs] float32: what it stands for


@dataclass(frozen=True)
class Format:
    """A published format.

    Attributes:
        layer: what becomes of a weight, [outputs, inputs] float32, of a layer by its name.
        config: the checkpoint's `quantization_config`, by the names of the tower's linear layers.
        inputs: numbers of a layer's input that share a scale when its product is made in 8 bits; 0: all of a token's;
            None: the input stays as it is.
    """

    layer: Callable[[str, torch.Tensor], Layer]
    config: Callable[[list[str]], dict]
    inputs: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A model in some precision: what a server reads, and the oracle's of it."""

    path: Path
    exact: Path  # in float32
    inputs: int | None = None  # as of `Format`
    tower_inputs: int | None = None


def quantize_checkpoint(source: Path, folder: Path, name: str) -> Checkpoint:
    """Write `folder`/stored in a format, and `folder`/exact with the same weights in float32.

    Args:
        source: a flat Qwen2.5-VL checkpoint in 16 bits.
        name: a key of `FORMATS`.
    """
    form = FORMATS[name]
    weights = load_file(source / "model.safetensors")
    stored, exact = {}, {}
    for key, weight in weights.items():
        layer = key.removesuffix(".weight")
        if _LINEAR.fullmatch(layer):
            quantized = form.layer(layer, weight.float())
            stored |= {f"{layer}.{end}": tensor.contiguous() for end, tensor in quantized.stored.items()}
            exact[key] = quantized.exact
        else:
            stored[key], exact[key] = weight, weight.float()
    config = {"quantization_config": form.config(_tower_layers(weights))}
    return Checkpoint(
        _write(source, folder / "stored", stored, config),
        _write(source, folder / "exact", exact, {"torch_dtype": "float32"}),
        form.inputs,
    )


def quantized_at_load(source: Path, folder: Path) -> Checkpoint:
    """What `--quantization fp8` makes of a checkpoint in 16 bits: each output has a scale, in the tower too."""
    weights = {key: weight.float() for key, weight in load_file(source / "model.safetensors").items()}
    linear = [*filter(_LINEAR.fullmatch, (key.removesuffix(".weight") for key in weights)), *_tower_layers(weights)]
    for layer in linear:
        weight = weights[f"{layer}.weight"]
        weights[f"{layer}.weight"] = rounded(weight, 0)
    return Checkpoint(source, _write(source, folder / "exact", weights, {"torch_dtype": "float32"}), 0, 0)


def in_16_bits(source: Path, folder: Path) -> Checkpoint:
    weights = {key: weight.float() for key, weight in load_file(source / "model.safetensors").items()}
    return Checkpoint(source, _write(source, folder / "exact", weights, {"torch_dtype": "float32"}))


def rounded(values: torch.Tensor, share: int) -> torch.Tensor:
    """Numbers as 8 bits keep them: `share` of the last axis, 0 for all of it, have one scale, by the largest one."""
    parts = values.unflatten(-1, (-1, share or values.shape[-1]))
    scales = parts.abs().amax(-1, keepdim=True).float().clamp(min=1e-10) / E4M3.max
    codes = (parts.float() / scales).clamp(E4M3.min, E4M3.max).to(torch.float8_e4m3fn)
    return (codes.float() * scales).flatten(-2).to(values.dtype)


# The formats


# Scales larger than they need be cost the numbers little: they have exponents of their own.
_UNEVEN = {"q_proj": 1, "k_proj": 2, "v_proj": 4, "gate_proj": 1, "up_proj": 4, "o_proj": 2, "down_proj": 1}


def _awq(_name: str, weight: torch.Tensor) -> Layer:
    """AutoAWQ's: groups of inputs with a zero point, 8 neighbouring outputs in a word, even ones in its first half."""
    groups = weight.T.unflatten(0, (-1, GROUP))  # [groups, GROUP, outputs]
    low, high = groups.amin(1, keepdim=True).clamp(max=0), groups.amax(1, keepdim=True).clamp(min=0)
    scales = ((high - low) / 15).half()
    zeros = (-low / scales.float()).round().clamp(0, 15)
    codes = ((groups / scales.float()).round() + zeros).clamp(0, 15)
    exact = ((codes - zeros) * scales.float()).flatten(0, 1).T
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    return Layer(
        {
            "qweight": _words(codes.flatten(0, 1).unflatten(1, (-1, 8))[..., order]),
            "qzeros": _words(zeros[:, 0].unflatten(1, (-1, 8))[..., order]),
            "scales": scales[:, 0],
        },
        exact,
    )


def _gptq(_name: str, weight: torch.Tensor) -> Layer:
    """AutoGPTQ's, symmetric: 8 neighbouring inputs in a word; the zero point, 8, is stored as one less."""
    groups = weight.T.unflatten(0, (-1, GROUP))
    scales = (groups.abs().amax(1, keepdim=True) * 2 / 15).half()
    codes = ((groups / scales.float()).round() + 8).clamp(0, 15)
    exact = ((codes - 8) * scales.float()).flatten(0, 1).T
    inputs, outputs = weight.T.shape
    return Layer(
        {
            "qweight": _words(codes.flatten(0, 1).unflatten(0, (-1, 8)).transpose(1, 2)),
            "qzeros": _words(torch.full((inputs // GROUP, outputs // 8, 8), 7)),
            "scales": scales[:, 0],
            "g_idx": torch.arange(inputs, dtype=torch.int32) // GROUP,
        },
        exact,
    )


def _words(codes: torch.Tensor) -> torch.Tensor:
    """[..., 8] numbers of 4 bits, the first one lowest, as [...] int32."""
    words = (codes.long() << (4 * torch.arange(8))).sum(-1)
    return (words - ((words >> 31) << 32)).int()


def _fp8(name: str, weight: torch.Tensor) -> Layer:
    """One scale for a weight; those of layers that a server fuses differ much, so that no other will do."""
    scale = weight.abs().max() / E4M3.max * _UNEVEN[name.split(".")[-1]]
    codes = (weight / scale).clamp(E4M3.min, E4M3.max).to(torch.float8_e4m3fn)
    return Layer({"weight": codes, "weight_scale": scale.reshape(1)}, codes.float() * scale)


def _fp8_blocks(_name: str, weight: torch.Tensor) -> Layer:
    """A scale for each block of 128 by 128, as DeepSeek's and Qwen3's."""
    blocks = weight.unflatten(1, (-1, BLOCK)).unflatten(0, (-1, BLOCK))  # [rows, BLOCK, columns, BLOCK]
    rows, _, columns, _ = blocks.shape
    uneven = 2.0 ** ((torch.arange(rows)[:, None] + 2 * torch.arange(columns)) % 4)
    scales = blocks.abs().amax((1, 3), keepdim=True) / E4M3.max * uneven[:, None, :, None]
    codes = (blocks / scales).clamp(E4M3.min, E4M3.max).to(torch.float8_e4m3fn)
    exact = (codes.float() * scales).flatten(2).flatten(0, 1)
    return Layer({"weight": codes.flatten(2).flatten(0, 1), "weight_scale_inv": scales[:, 0, :, 0]}, exact)


_PACKED = {
    "num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP, "dynamic": False,
    "actorder": None,
}  # fmt: skip
_CHANNELS = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False}
_TOKENS = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "dynamic": True}


def _w4a16(_name: str, weight: torch.Tensor) -> Layer:
    """Packed by compressed-tensors."""
    groups = weight.unflatten(1, (-1, GROUP))
    scales = (groups.abs().amax(-1) * 2 / 15).half()
    stored = _compressed("pack-quantized", _PACKED, None, weight, scales)
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    codes = unpack_from_int32(stored["weight_packed"], 4, weight.shape)
    exact = (codes.unflatten(1, (-1, GROUP)).float() * scales.float()[..., None]).flatten(1)
    return Layer(stored, exact)


def _fp8_dynamic(_name: str, weight: torch.Tensor) -> Layer:
    """By compressed-tensors: a scale for each output; those of inputs are found for each token."""
    uneven = 2.0 ** (torch.arange(len(weight))[:, None] % 3)
    scales = (weight.abs().amax(1, keepdim=True) / E4M3.max * uneven).half()
    stored = _compressed("float-quantized", _CHANNELS, _TOKENS, weight, scales)
    return Layer(stored, stored["weight"].float() * scales.float())


def _compressed(form: str, weights: dict, inputs: dict | None, weight: torch.Tensor, scales: torch.Tensor) -> dict:
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    scheme = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs)
    # In 16 bits, as a model in 16 bits is compressed.
    state = {"weight": weight.half(), "weight_scale": scales}
    return BaseCompressor.get_value_from_registry(form).compress(state, scheme)


def _compressed_config(form: str, weights: dict, inputs: dict | None) -> Callable[[list[str]], dict]:
    def config(tower: list[str]) -> dict:
        group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}
        return {
            "quant_method": "compressed-tensors",
            "format": form,
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": [*tower, "lm_head"],  # one by one, as llm-compressor writes them
            "kv_cache_scheme": None,
        }

    return config


def awq_config(_tower: list[str]) -> dict:
    """Of Qwen's own checkpoints."""
    return {
        "quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm",
        "modules_to_not_convert": ["visual"],
    }  # fmt: skip


def gptq_config(_tower: list[str]) -> dict:
    """GPTQModel's, with the rule that leaves the tower out: without it SGLang looks for a quantized one."""
    return {
        "quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": True, "desc_act": False, "lm_head": False,
        "checkpoint_format": "gptq", "pack_dtype": "int32", "dynamic": {"-:.*visual.*": {}},
    }  # fmt: skip


def fp8_config(**more: list[int]) -> Callable[[list[str]], dict]:
    """With the whole tower left out: SGLang doesn't find its fused layers among single names."""

    def config(_tower: list[str]) -> dict:
        left_out = {"modules_to_not_convert": ["visual", "lm_head"]}
        return {"quant_method": "fp8", "activation_scheme": "dynamic"} | left_out | more

    return config


FORMATS: Mapping[str, Format] = {
    "awq": Format(_awq, awq_config),
    "gptq": Format(_gptq, gptq_config),
    "fp8": Format(_fp8, fp8_config(), inputs=0),
    "fp8-blocks": Format(_fp8_blocks, fp8_config(weight_block_size=[BLOCK, BLOCK]), inputs=BLOCK),
    "w4a16": Format(_w4a16, _compressed_config("pack-quantized", _PACKED, None)),
    "fp8-dynamic": Format(_fp8_dynamic, _compressed_config("float-quantized", _CHANNELS, _TOKENS), inputs=0),
}


def _tower_layers(weights: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tower's linear layers, without the convolution that reads patches."""
    layers = (key.removesuffix(".weight") for key in weights)
    return [layer for layer in layers if _TOWERS.fullmatch(layer) and "patch_embed" not in layer]


def _write(source: Path, folder: Path, weights: Mapping[str, torch.Tensor], config: dict) -> Path:
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    contiguous = {key: weight.contiguous() for key, weight in weights.items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config, indent=2) + "\n")
    return folder


# The oracle of them


def reads_in_8_bits(model: PreTrainedModel, checkpoint: Checkpoint) -> PreTrainedModel:
    """Let the linear layers see what a product in 8 bits sees of their inputs. The weights are exact already."""
    for name, module in model.named_modules():
        share = checkpoint.tower_inputs if "visual." in name else checkpoint.inputs
        if isinstance(module, nn.Linear) and "lm_head" not in name and share is not None:
            module.register_forward_pre_hook(lambda _, inputs, share=share: (rounded(inputs[0], share), *inputs[1:]))
    return model


class RoundedCache(DynamicCache):
    """Keys and values as a pool in 8 bits keeps them, with scales of 1, and kernels of attention read them.

    Triton's read a prompt's own tokens before they are rounded, and the one of a decode step after; FlashAttention 3
    reads all of them after (`read_cache_in_8_bits`).
    """

    def __init__(self, dtype: torch.dtype, is_fa3: bool) -> None:
        super().__init__()
        self.dtype, self.is_fa3 = dtype, is_fa3

    def update(self, keys: torch.Tensor, values: torch.Tensor, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        kept = [each.to(self.dtype).to(each.dtype) for each in (keys, values)]
        read = super().update(*kept, *args, **kwargs)
        new = keys.shape[-2]
        if new == 1 or self.is_fa3:
            return read
        return tuple(torch.cat([each[..., :-new, :], own], -2) for each, own in zip(read, (keys, values), strict=True))


_DECODE_BLOCK = 32  # tokens, of SGLang 0.5.17's decode_attention.py


def read_cache_in_8_bits(
    module: nn.Module,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as kernels have it where keys and values are in 8 bits.

    They multiply in 8 bits: queries are rounded, and what `exp` makes of a block of scores, by the largest of them, 256
    times as large in FlashAttention 3. It does so for a prompt too, Triton's for a decode step only. A request of more
    than 8 of Triton's blocks has several in a part, whose later ones are taken by the largest so far, and so has one of
    FlashAttention's: here each is taken by its own.

    Args:
        query: [1, heads, T, head_dim]; with Triton's a prompt's, of more than one token, is left to `transformers`.
        keys, values: [1, kv_heads, S, head_dim], the last T tokens' among them, as the cache keeps them.
    """
    kept, is_fa3 = getattr(module, _KEPT_AS, None) or (None, False)
    new, known = query.shape[-2], keys.shape[-2]
    if kept is None or (new > 1 and not is_fa3):
        return sdpa_attention_forward(module, query, keys, values, attention_mask, scaling=scaling, **more)
    tokens, larger = (known, 256) if is_fa3 else (_DECODE_BLOCK, 1)

    def rounded_alike(numbers: torch.Tensor) -> torch.Tensor:
        return numbers.to(kept).to(numbers.dtype)

    keys, values = (each.repeat_interleave(query.shape[1] // each.shape[1], dim=1) for each in (keys, values))
    scores = rounded_alike(query) @ keys.transpose(-1, -2) * scaling
    scores = scores + scores.new_full((new, known), -torch.inf).triu(known - new + 1)
    greatest, total, weight = scores.amax(-1, keepdim=True), 0.0, 0.0
    for block, of_block in zip(scores.split(tokens, -1), values.split(tokens, -2), strict=True):
        largest = block.amax(-1, keepdim=True)
        chances, scale = (block - largest).exp(), (largest - greatest).exp()
        total = total + scale * (rounded_alike(chances * larger) @ of_block) / larger
        weight = weight + scale * chances.sum(-1, keepdim=True)
    return (total / weight).transpose(1, 2), None


_KEPT_AS, _IN_8_BITS = "kv_dtype_and_is_fa3", "read_cache_in_8_bits"
AttentionInterface.register(_IN_8_BITS, read_cache_in_8_bits)
AttentionMaskInterface.register(_IN_8_BITS, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


class ModelWithRoundedCache(CachedModel):
    """A model whose decoder reads and keeps keys and values in 8 bits."""

    def __init__(self, model: PreTrainedModel, kv_dtype: torch.dtype, is_fa3: bool) -> None:
        super().__init__(model)
        self.kept_as = kv_dtype, is_fa3
        model.set_attn_implementation({"text_config": _IN_8_BITS})
        for name, module in model.named_modules():
            if name.endswith(".self_attn"):
                setattr(module, _KEPT_AS, self.kept_as)

    def _forward(self, *args, **inputs):
        if self.cache is None:
            self.cache = RoundedCache(*self.kept_as)
        return super()._forward(*args, **inputs)


class QuantizedReference(Reference):
    """The oracle of three checkpoints.

    Args:
        checkpoints: of base, expert and amateur.
        kv_dtype: of keys and values; None: the model's.
        is_fa3: attention is FlashAttention 3's, not Triton's: of keys and values in 8 bits only.
        rounds_inputs: False: as if all products were made in 16 bits.
        dtype: that it computes in.
    """

    def __init__(
        self,
        checkpoints: tuple[Checkpoint, Checkpoint, Checkpoint],
        kv_dtype: torch.dtype | None = None,
        is_fa3: bool = False,
        rounds_inputs: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        by_path = {each.exact: each for each in checkpoints}

        def load(path: Path, dtype: torch.dtype, device: str) -> PreTrainedModel:
            model = load_checkpoint(path, dtype, device)
            return reads_in_8_bits(model, by_path[path]) if rounds_inputs else model

        cache = CachedModel if kv_dtype is None else partial(ModelWithRoundedCache, kv_dtype=kv_dtype, is_fa3=is_fa3)
        super().__init__(*(each.exact for each in checkpoints), dtype, load=load, cache=cache)
        self.reads_by_step = kv_dtype is not None

    def _read(self, models, prompt, images, continuation):
        """As the oracle's; a rounded cache tells a prompt's tokens from those that were written one by one."""
        if not self.reads_by_step:
            return super()._read(models, prompt, images, continuation)
        request = self.prepare(prompt, images)
        rows = {model: [model.read(request)[-1], *map(model.read_next, continuation or [])] for model in models}
        return {model: torch.stack(each) for model, each in rows.items()}


# What it means that a server agrees

# Rounding of inputs to 8 bits feeds on itself: two that differ in the last of 16 bits round a hundredth of their
# numbers to neighbours, and after a few layers all that rounding does differs. So where inputs are rounded in a step
# nobody can say what follows, but how far rounding moves it. An oracle in 16 bits is moved 0.81 to 1.16 times as far as
# one in 32 (root mean square over 192 tokens, of five servers of test_precisions at each strength); one that doesn't
# round, 0.02 to 0.05 times; one with a single weight of the base twice as large, 1.41 to 4.2 times.
ROUNDS_AS_FAR = 0.7, 1.3
# Where keys and values alone are in 8 bits, what rounding does is not quite another's: an oracle in 16 bits was 0.40 to
# 0.53 of it away from the one in 32 (kv-e4m3).
ROUNDS_ALIKE = 0.6
# How many times what rounding does to the logits (root mean square) a token may be below the greatest: it was 2.9.
FAR_CALL = 5.0


class Tokens(NamedTuple):
    """Served tokens, and what the oracles say at each of them."""

    served: torch.Tensor  # [T] float32 log probabilities
    own: torch.Tensor  # [T], by the oracle that rounds as the server does
    finer: torch.Tensor  # [T], by one that rounds nothing in a step
    below: torch.Tensor  # [T], how far each token's logit is below the greatest, by the former
    moved: torch.Tensor  # [T], root mean square over all logits of what rounding does to them

    @staticmethod
    def of(token_ids: list[int], served: list[float], own: torch.Tensor, finer: torch.Tensor) -> Tokens:
        """`own` and `finer`: [T, V] fused rows."""
        at = range(len(token_ids)), token_ids
        known = own.isfinite()
        moved = torch.where(known, own - finer, 0.0).square().sum(-1) / known.sum(-1)
        logprobs = (rows.log_softmax(-1)[at] for rows in (own, finer))
        return Tokens(torch.tensor(served), *logprobs, own.amax(-1) - own[at], moved.sqrt())


def together(parts: list[Tokens]) -> Tokens:
    return Tokens(*map(torch.cat, zip(*parts, strict=True)))


def rms(values: torch.Tensor) -> float:
    return values.square().mean().sqrt().item()


def assert_agree(tokens: Tokens, tolerance: float, close_call: float, is_cache_alone: bool = False) -> None:
    """The served tokens are those of models in these precisions.

    Args:
        tolerance: how far a log probability may be off where nothing is rounded in a step.
        close_call: how far below the greatest a token's logit may be there.
        is_cache_alone: of what is rounded in a step.
    """
    by_rounding = rms(tokens.own - tokens.finer)
    if by_rounding == 0:
        worst, below = (tokens.served - tokens.own).abs().max().item(), tokens.below.max().item()
        assert worst <= tolerance, f"logprobs are off by {worst:.4f}"
        assert below <= close_call, f"a token is {below:.4f} below the greatest"
        return
    ratio = rms(tokens.served - tokens.finer) / by_rounding
    assert ROUNDS_AS_FAR[0] <= ratio <= ROUNDS_AS_FAR[1], f"{ratio:.3f} times as far as rounding moves the oracle"
    far = tokens.below.max().item() / rms(tokens.moved)
    assert far <= FAR_CALL, f"a token is {far:.1f} times below the greatest what rounding does"
    if is_cache_alone:
        unlike = rms(tokens.served - tokens.own) / by_rounding
        assert unlike <= ROUNDS_ALIKE, f"{unlike:.3f} of what rounding does is another's"
