"""Qwen2-VL and Qwen2.5-VL: one decoder with M-RoPE, and two vision towers."""

from __future__ import annotations

from collections.abc import Mapping

from sgl_proxythinker.programs.random_models.decoder import Decoder
from sgl_proxythinker.programs.random_models.pictures import FRAMES_PER_PATCH, MERGE_PATCHES, PATCH_PIXELS
from sgl_proxythinker.programs.random_models.size import Size
from sgl_proxythinker.programs.random_models.tokenizer import END_OF_TURN
from sgl_proxythinker.programs.random_models.weights import Random, Weights


def qwen2_5_vl_weights(size: Size, rows: int, random: Random, spread: float) -> Weights:
    weights, vision = Weights(random), size.vision_hidden
    Decoder(qkv_bias=True).write(weights, size, rows, spread)
    weights.patch_embedding("visual.patch_embed.proj", vision, FRAMES_PER_PATCH, PATCH_PIXELS)
    for index in range(size.vision_layers):
        block = f"visual.blocks.{index}"
        weights.norm(f"{block}.norm1", vision)
        weights.linear(f"{block}.attn.qkv", 3 * vision, vision, bias=True)
        weights.linear(f"{block}.attn.proj", vision, vision, bias=True)
        weights.norm(f"{block}.norm2", vision)
        weights.gated_mlp(f"{block}.mlp", vision, size.vision_mlp, bias=True)
    weights.norm("visual.merger.ln_q", vision)
    _merger(weights, size)
    return weights


def qwen2_vl_weights(size: Size, rows: int, random: Random, spread: float) -> Weights:
    weights, vision = Weights(random), size.vision_hidden
    Decoder(qkv_bias=True).write(weights, size, rows, spread)
    weights.patch_embedding("visual.patch_embed.proj", vision, FRAMES_PER_PATCH, PATCH_PIXELS)
    for index in range(size.vision_layers):
        block = f"visual.blocks.{index}"
        weights.norm(f"{block}.norm1", vision, bias=True)
        weights.linear(f"{block}.attn.qkv", 3 * vision, vision, bias=True)
        weights.linear(f"{block}.attn.proj", vision, vision, bias=True)
        weights.norm(f"{block}.norm2", vision, bias=True)
        weights.linear(f"{block}.mlp.fc1", size.vision_mlp, vision, bias=True)
        weights.linear(f"{block}.mlp.fc2", vision, size.vision_mlp, bias=True)
    weights.norm("visual.merger.ln_q", vision, bias=True)
    _merger(weights, size)
    return weights


def _merger(weights: Weights, size: Size) -> None:
    merged = size.vision_hidden * MERGE_PATCHES**2
    weights.linear("visual.merger.mlp.0", merged, merged, bias=True)
    weights.linear("visual.merger.mlp.2", size.hidden, merged, bias=True)


def qwen2_5_vl_config(size: Size, rows: int, ids: Mapping[str, int], dtype: str) -> dict:
    """config.json in the flat form of the published checkpoints."""
    last_block = size.vision_layers - 1
    return _config(size, rows, ids, dtype) | {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "vision_config": {
            "depth": size.vision_layers,
            "hidden_act": "silu",
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_mlp,
            "num_heads": size.vision_heads,
            "in_chans": 3,
            "out_hidden_size": size.hidden,
            "patch_size": PATCH_PIXELS,
            "spatial_merge_size": MERGE_PATCHES,
            "spatial_patch_size": PATCH_PIXELS,
            "temporal_patch_size": FRAMES_PER_PATCH,
            "tokens_per_second": 2,
            # Windows of 112 pixels, so that a picture of 224 has four, and full attention in the last block.
            "window_size": 112,
            "fullatt_block_indexes": list(range(0 if size.full_vision_attention else last_block, size.vision_layers)),
        },
    }


def qwen2_vl_config(size: Size, rows: int, ids: Mapping[str, int], dtype: str) -> dict:
    """config.json in the flat form of the published checkpoints; `hidden_size` of the tower is the decoder's there."""
    return _config(size, rows, ids, dtype) | {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "vision_config": {
            "depth": size.vision_layers,
            "embed_dim": size.vision_hidden,
            "mlp_ratio": size.vision_mlp // size.vision_hidden,
            "num_heads": size.vision_heads,
            "in_chans": 3,
            "hidden_size": size.hidden,
            "patch_size": PATCH_PIXELS,
            "spatial_merge_size": MERGE_PATCHES,
            "spatial_patch_size": PATCH_PIXELS,
            "temporal_patch_size": FRAMES_PER_PATCH,
        },
    }


def _config(size: Size, rows: int, ids: Mapping[str, int], dtype: str) -> dict:
    return {
        "torch_dtype": dtype,
        "vocab_size": rows,
        "hidden_size": size.hidden,
        "intermediate_size": size.mlp,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": size.rope_theta,
        "rope_scaling": {"type": "mrope", "mrope_section": size.mrope_section},
        "max_position_embeddings": 4096,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": size.layers,
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids[END_OF_TURN],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
    }
