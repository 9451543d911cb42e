"""The forward pass of `transformers`' Qwen2.5-VL for a batch in which every prompt has one picture of the same size.

The weights and modules are those of `Qwen2_5_VLForConditionalGeneration`. What is done here again is what it does one
picture at a time: its vision tower calls attention once a picture, and that takes most of a step of a tiny model. Equal
pictures make a batch dimension of their own instead. `tests/test_tiny_family.py` compares the two.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_position_ids

from benchmarks.tiny_family.scene import PIXELS
from programs.random_triple import MERGE_PATCHES, PATCH_PIXELS, image_config

SIDE = PIXELS // PATCH_PIXELS  # patches
IMAGE_TOKENS = (SIDE // MERGE_PATCHES) ** 2
ROPE_LAG = IMAGE_TOKENS - SIDE // MERGE_PATCHES  # M-RoPE: a picture takes as many positions as its longer side


def patches(pictures: torch.Tensor) -> torch.Tensor:
    """[B, PIXELS, PIXELS, 3] uint8 -> [B, SIDE**2, 1176] float32, as `Qwen2VLImageProcessor` makes `pixel_values`."""
    settings = image_config()
    mean, std = (torch.tensor(settings[name], device=pictures.device) for name in ("image_mean", "image_std"))
    pixels = ((pictures.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    merged = SIDE // MERGE_PATCHES
    pixels = pixels.reshape(len(pictures), 3, merged, MERGE_PATCHES, PATCH_PIXELS, merged, MERGE_PATCHES, PATCH_PIXELS)
    pixels = pixels.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(len(pictures), SIDE**2, 3, 1, PATCH_PIXELS**2)
    return pixels.expand(-1, -1, -1, 2, -1).reshape(len(pictures), SIDE**2, -1)  # a still picture is two equal frames


def see(model: Qwen2_5_VLForConditionalGeneration, pictures: torch.Tensor) -> torch.Tensor:
    """[B, PIXELS, PIXELS, 3] uint8 -> [B, IMAGE_TOKENS, hidden]. Attention must be full in every vision block."""
    visual = model.model.visual
    weight = visual.patch_embed.proj.weight
    # The convolution's stride is its kernel, so it is a product; cuDNN's takes far longer.
    hidden = functional.linear(patches(pictures).to(weight.dtype), weight.flatten(1))
    grid = torch.tensor([[1, SIDE, SIDE]])
    angles = visual.rotary_pos_emb(get_vision_position_ids(grid, MERGE_PATCHES).to(pictures.device))
    angles = torch.cat((angles, angles), dim=-1)
    cos, sin = angles.cos(), angles.sin()
    for block in visual.blocks:
        attention, normed = block.attn, block.norm1(hidden)
        query, key, value = attention.qkv(normed).unflatten(-1, (3, attention.num_heads, -1)).unbind(2)
        query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
        mixed = functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)))
        hidden = hidden + attention.proj(mixed.transpose(1, 2).flatten(2))
        hidden = hidden + block.mlp(block.norm2(hidden))
    return visual.merger(hidden.flatten(0, 1)).unflatten(0, (len(pictures), IMAGE_TOKENS))


def embed(
    model: Qwen2_5_VLForConditionalGeneration, input_ids: torch.Tensor, seen: torch.Tensor | None, image_at: int
) -> torch.Tensor:
    """[B, T] int64 and what `see` gave -> [B, T, hidden], the picture in place of the IMAGE_TOKENS from `image_at`."""
    embedded = model.model.language_model.embed_tokens(input_ids)
    if seen is None:
        return embedded
    after = image_at + IMAGE_TOKENS
    return torch.cat((embedded[:, :image_at], seen.to(embedded.dtype), embedded[:, after:]), dim=1)


def positions(length: int, image_at: int, device: torch.device) -> torch.Tensor:
    """[3, 1, length]: M-RoPE positions in time, height and width of a prompt whose picture starts at `image_at`."""
    tokens = torch.arange(length, device=device)
    place = tokens - image_at
    side = SIDE // MERGE_PATCHES
    in_picture = (place >= 0) & (place < IMAGE_TOKENS)
    text = torch.where(tokens < image_at, tokens, tokens - ROPE_LAG)
    rows = (torch.zeros_like(place), place // side, place % side)
    return torch.stack([torch.where(in_picture, image_at + row, text) for row in rows])[:, None]


def hidden_states(
    model: Qwen2_5_VLForConditionalGeneration, embedded: torch.Tensor, image_at: int, cache=None
) -> torch.Tensor:
    """[B, T, hidden] -> [B, T, hidden], ready for `lm_head`. Prompts start at column 0; padding comes after them."""
    length = embedded.shape[1]
    place = positions(length, image_at, embedded.device).expand(3, len(embedded), length)
    language = model.model.language_model
    return language(
        inputs_embeds=embedded, position_ids=place, past_key_values=cache, use_cache=cache is not None
    ).last_hidden_state
