"""Which model architectures can be guided: one row each, and what of them must agree in the models of one server.

To add one: its row here, its random model in programs/random_models, and its name in tests/test_families.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from sgl_proxythinker.placement import Shape

BYTES_PER_WEIGHT = 2  # 16 bits; launch/precision.py has others


class Pictures(NamedTuple):
    """How the models of a family see: what must be equal for one processor to feed them all."""

    family: str
    place: str  # what stands for a picture in a prompt
    token_ids: tuple[str, ...]  # of the config: where a picture's tokens are and what they mean
    tower: tuple[str, ...]  # of the vision tower's config: how it reads the patches
    processor: tuple[str, ...]  # of the image processor


class Architecture(NamedTuple):
    """What a launch needs to know of a model by its architecture."""

    shape: Callable[[Any], Shape]  # of its `transformers` config
    pictures: Pictures | None = None  # None: it reads text only
    is_small: bool = True  # whether it may be a small model, not the base alone
    was_on_gpu: bool = False  # whether its tokens were compared with the oracle's there
    # Linear layers of the vision tower, by SGLang's names, which it quantizes unless the checkpoint leaves them out.
    tower_layers: tuple[str, ...] = ()


QWEN_PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
_QWEN_TOKEN_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
_PATCHES = ("patch_size", "spatial_merge_size", "temporal_patch_size", "in_channels")
_PIXELS = ("image_mean", "image_std", "do_normalize", "do_rescale", "rescale_factor", "patch_size", "merge_size",
           "temporal_patch_size")  # fmt: skip

_QWEN2_VL = Pictures("Qwen2-VL", QWEN_PLACE, _QWEN_TOKEN_IDS, _PATCHES, _PIXELS)
_QWEN2_5_VL = _QWEN2_VL._replace(family="Qwen2.5-VL", tower=(*_PATCHES, "tokens_per_second"))
_QWEN3_VL = _QWEN2_VL._replace(family="Qwen3-VL")


_TOWER = ("visual.blocks.0.attn.qkv_proj", "visual.blocks.0.attn.proj", "visual.merger.mlp.0", "visual.merger.mlp.2")
_PLAIN_TOWER = (*_TOWER, "visual.blocks.0.mlp.fc1", "visual.blocks.0.mlp.fc2")
_GATED_TOWER = (*_TOWER, "visual.blocks.0.mlp.gate_up_proj", "visual.blocks.0.mlp.down_proj")


def _text_shape(config: Any) -> Shape:
    return _shape(config)


def _qwen2_vl_shape(config: Any) -> Shape:
    vision = config.vision_config
    mlp = int(vision.embed_dim * vision.mlp_ratio)
    return _shape(config, vision.embed_dim, vision.num_heads, mlp, matrices=2)


def _qwen2_5_vl_shape(config: Any) -> Shape:
    vision = config.vision_config
    return _shape(config, vision.hidden_size, vision.num_heads, vision.intermediate_size, matrices=3)


def _qwen3_vl_shape(config: Any) -> Shape:
    vision = config.vision_config
    mergers = 1 + len(vision.deepstack_visual_indexes)
    return _shape(config, vision.hidden_size, vision.num_heads, vision.intermediate_size, matrices=2, mergers=mergers)


def _shape(
    config: Any, tower_width: int = 0, tower_heads: int = 0, tower_mlp: int = 0, matrices: int = 0, mergers: int = 1
) -> Shape:
    """Of a decoder, and of a tower if it has a width. `matrices`: of an MLP of the tower."""
    text = config.get_text_config()
    hidden, layers = text.hidden_size, text.num_hidden_layers
    head_dim = getattr(text, "head_dim", None) or hidden // text.num_attention_heads
    attention = 2 * hidden * head_dim * (text.num_attention_heads + text.num_key_value_heads)
    mlps = [_mlps(text, layer) for layer in range(layers)]
    linear = layers * attention + 3 * hidden * sum(count * width for count, width in mlps)
    weights = linear + text.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
    if tower_width:
        vision = config.vision_config
        block = tower_width * (4 * tower_width + matrices * tower_mlp)
        patch = tower_width * vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        merged = tower_width * vision.spatial_merge_size**2
        weights += vision.depth * block + patch + mergers * merged * (merged + hidden)
    mlp = math.gcd(*(width for _, width in mlps))
    heads, kv_heads = text.num_attention_heads, text.num_key_value_heads
    token_bytes = 2 * layers * kv_heads * head_dim * BYTES_PER_WEIGHT
    return Shape(
        heads, kv_heads, mlp, tower_heads, tower_mlp, BYTES_PER_WEIGHT * weights, token_bytes, text.vocab_size, linear,
        head_dim=head_dim,
    )  # fmt: skip


def _mlps(text: Any, layer: int) -> tuple[int, int]:
    """How many a layer has, and how wide each is; ranks divide each of them."""
    has_experts = hasattr(text, "num_experts") and layer not in text.mlp_only_layers
    if has_experts and (layer + 1) % text.decoder_sparse_step == 0:
        return text.num_experts, text.moe_intermediate_size
    return 1, text.intermediate_size


ARCHITECTURES = {
    "Qwen2_5_VLForConditionalGeneration": Architecture(
        _qwen2_5_vl_shape, _QWEN2_5_VL, was_on_gpu=True, tower_layers=_GATED_TOWER
    ),
    "Qwen2VLForConditionalGeneration": Architecture(
        _qwen2_vl_shape, _QWEN2_VL, was_on_gpu=True, tower_layers=_PLAIN_TOWER
    ),
    "Qwen3VLForConditionalGeneration": Architecture(_qwen3_vl_shape, _QWEN3_VL, was_on_gpu=True),
    "Qwen3VLMoeForConditionalGeneration": Architecture(_qwen3_vl_shape, _QWEN3_VL, is_small=False, was_on_gpu=True),
    "Qwen2ForCausalLM": Architecture(_text_shape, was_on_gpu=True),
    "Qwen3ForCausalLM": Architecture(_text_shape, was_on_gpu=True),
    "Qwen3MoeForCausalLM": Architecture(_text_shape, is_small=False, was_on_gpu=True),
    "LlamaForCausalLM": Architecture(_text_shape, was_on_gpu=True),
}
