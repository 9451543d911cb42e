"""The forward pass of `transformers`' Qwen2.5-VL for a batch in which every prompt has one picture of the same size.

The weights and modules are those of `Qwen2_5_VLForConditionalGeneration`. What is done here again is what it does one
picture at a time: its vision tower calls attention once a picture, and that takes most of a step of a tiny model. Equal
pictures make a batch dimension of their own instead, and nothing waits for the host, so that a step can be captured in
a CUDA graph. `tests/test_tiny_family.py` compares the two.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import DynamicCache, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_position_ids

from sgl_proxythinker.programs.random_models.pictures import MERGE_PATCHES, PATCH_PIXELS, qwen2_image_config
from sgl_proxythinker.tiny_family.scene import PIXELS

SIDE = PIXELS // PATCH_PIXELS  # patches
IMAGE_TOKENS = (SIDE // MERGE_PATCHES) ** 2
ROPE_LAG = IMAGE_TOKENS - SIDE // MERGE_PATCHES  # M-RoPE: a picture takes as many positions as its longer side


class Forward:
    """A model and where its prompts have their picture: IMAGE_TOKENS tokens from `image_at` on.

    Attention must be full in every vision block.
    """

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, image_at: int, longest: int) -> None:
        self.model, self.image_at = model, image_at
        self.language, self.visual, self.head = model.model.language_model, model.model.visual, model.lm_head
        device, settings = model.lm_head.weight.device, qwen2_image_config()
        self.mean, self.std = (torch.tensor(settings[name], device=device) for name in ("image_mean", "image_std"))
        grid = torch.tensor([[1, SIDE, SIDE]])
        angles = self.visual.rotary_pos_emb(get_vision_position_ids(grid, MERGE_PATCHES).to(device))
        angles = torch.cat((angles, angles), dim=-1)
        self.cos, self.sin = angles.cos(), angles.sin()
        self.ids = torch.arange(self.head.out_features, device=device)
        self.positions = positions(longest, image_at).to(device)

    def see(self, pictures: torch.Tensor) -> torch.Tensor:
        """[B, PIXELS, PIXELS, 3] uint8 -> [B, IMAGE_TOKENS, hidden]."""
        weight = self.visual.patch_embed.proj.weight
        # The convolution's stride is its kernel, so it is a product; cuDNN's takes far longer.
        hidden = functional.linear(self.patches(pictures).to(weight.dtype), weight.flatten(1))
        for block in self.visual.blocks:
            attention, normed = block.attn, block.norm1(hidden)
            query, key, value = attention.qkv(normed).unflatten(-1, (3, attention.num_heads, -1)).unbind(2)
            query, key = apply_rotary_pos_emb_vision(query, key, self.cos, self.sin)
            mixed = functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)))
            hidden = hidden + attention.proj(mixed.transpose(1, 2).flatten(2))
            hidden = hidden + block.mlp(block.norm2(hidden))
        return self.visual.merger(hidden.flatten(0, 1)).unflatten(0, (len(pictures), IMAGE_TOKENS))

    def patches(self, pictures: torch.Tensor) -> torch.Tensor:
        """[B, PIXELS, PIXELS, 3] uint8 -> [B, SIDE**2, 1176] float32, as `Qwen2VLImageProcessor` makes them."""
        count, merged = len(pictures), SIDE // MERGE_PATCHES
        pixels = ((pictures.float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)
        pixels = pixels.reshape(count, 3, merged, MERGE_PATCHES, PATCH_PIXELS, merged, MERGE_PATCHES, PATCH_PIXELS)
        pixels = pixels.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(count, SIDE**2, 3, 1, PATCH_PIXELS**2)
        return pixels.expand(-1, -1, -1, 2, -1).reshape(count, SIDE**2, -1)  # a still picture is two equal frames

    def hidden_states(
        self, input_ids: torch.Tensor, seen: torch.Tensor, cache: DynamicCache | None = None
    ) -> torch.Tensor:
        """[B, T] int64 and what `see` gave -> [B, T, hidden], ready for `head`. Padding comes after the prompts."""
        rows, length = input_ids.shape
        # As a product: the gradient of a lookup sorts the ids, and takes longer than a few hundred columns.
        rows_of = self.language.embed_tokens.weight
        embedded = (input_ids[..., None] == self.ids).to(rows_of.dtype) @ rows_of
        after = self.image_at + IMAGE_TOKENS
        embedded = torch.cat((embedded[:, : self.image_at], seen.to(embedded.dtype), embedded[:, after:]), dim=1)
        return self.language(
            inputs_embeds=embedded,
            position_ids=self.positions[:, :, :length].expand(3, rows, length),
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state


def positions(length: int, image_at: int) -> torch.Tensor:
    """[3, 1, length]: M-RoPE positions in time, height and width of a prompt whose picture starts at `image_at`."""
    tokens, side = torch.arange(length), SIDE // MERGE_PATCHES
    place = tokens - image_at
    in_picture = (place >= 0) & (place < IMAGE_TOKENS)
    text = torch.where(tokens < image_at, tokens, tokens - ROPE_LAG)
    rows = (torch.zeros_like(place), place // side, place % side)
    return torch.stack([torch.where(in_picture, image_at + row, text) for row in rows])[:, None]
