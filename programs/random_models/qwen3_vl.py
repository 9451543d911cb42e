"""Qwen3-VL, dense or a mixture of experts: interleaved M-RoPE, and a tower whose blocks reach into the decoder."""

from __future__ import annotations

from collections.abc import Mapping

from sgl_proxythinker.programs.random_models.decoder import Decoder
from sgl_proxythinker.programs.random_models.pictures import FRAMES_PER_PATCH, MERGE_PATCHES
from sgl_proxythinker.programs.random_models.size import Size
from sgl_proxythinker.programs.random_models.text import qwen3_fields
from sgl_proxythinker.programs.random_models.weights import Random, Weights

PATCH_PIXELS = 16
POSITIONS_PER_SIDE = 12  # of the grid of learned positions, which is stretched over each picture


def qwen3_vl_weights(size: Size, rows: int, random: Random, spread: float) -> Weights:
    weights, vision = Weights(random), size.vision_hidden
    decoder = Decoder(prefix="model.language_model", qk_norm=True, experts="stacked")
    decoder.write(weights, size, rows, spread)
    weights.patch_embedding("model.visual.patch_embed.proj", vision, FRAMES_PER_PATCH, PATCH_PIXELS, bias=True)
    weights["model.visual.pos_embed.weight"] = random.normal(POSITIONS_PER_SIDE**2, vision)
    for index in range(size.vision_layers):
        block = f"model.visual.blocks.{index}"
        weights.norm(f"{block}.norm1", vision, bias=True)
        weights.linear(f"{block}.attn.qkv", 3 * vision, vision, bias=True)
        weights.linear(f"{block}.attn.proj", vision, vision, bias=True)
        weights.norm(f"{block}.norm2", vision, bias=True)
        weights.linear(f"{block}.mlp.linear_fc1", size.vision_mlp, vision, bias=True)
        weights.linear(f"{block}.mlp.linear_fc2", vision, size.vision_mlp, bias=True)
    merged = vision * MERGE_PATCHES**2
    _merger(weights, "model.visual.merger", vision, merged, size.hidden)
    for index in range(len(_deepstack_blocks(size))):
        _merger(weights, f"model.visual.deepstack_merger_list.{index}", merged, merged, size.hidden)
    return weights


def _merger(weights: Weights, name: str, normed: int, merged: int, width: int) -> None:
    weights.norm(f"{name}.norm", normed, bias=True)
    weights.linear(f"{name}.linear_fc1", merged, merged, bias=True)
    weights.linear(f"{name}.linear_fc2", width, merged, bias=True)


def _deepstack_blocks(size: Size) -> list[int]:
    """Blocks of the tower whose output is added to the first layers of the decoder: all but the last."""
    return list(range(size.vision_layers - 1))


def qwen3_vl_config(size: Size, rows: int, ids: Mapping[str, int], dtype: str) -> dict:
    """config.json, nested as published."""
    kind = "qwen3_vl_moe" if size.experts else "qwen3_vl"
    rope = {"mrope_interleaved": True, "mrope_section": size.interleaved_mrope_section, "rope_type": "default"}
    text = qwen3_fields(size, rows, ids) | {"model_type": f"{kind}_text", "dtype": dtype, "rope_scaling": rope}
    return {
        "architectures": [f"Qwen3VL{'Moe' if size.experts else ''}ForConditionalGeneration"],
        "model_type": kind,
        "tie_word_embeddings": False,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "text_config": text,
        "vision_config": {
            "model_type": kind,
            "depth": size.vision_layers,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_mlp,
            "num_heads": size.vision_heads,
            "in_channels": 3,
            "out_hidden_size": size.hidden,
            "patch_size": PATCH_PIXELS,
            "spatial_merge_size": MERGE_PATCHES,
            "temporal_patch_size": FRAMES_PER_PATCH,
            "num_position_embeddings": POSITIONS_PER_SIDE**2,
            "deepstack_visual_indexes": _deepstack_blocks(size),
        },
    }
