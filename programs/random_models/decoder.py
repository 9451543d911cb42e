"""Random weights of a decoder: what those of Qwen and Llama have in common, and what not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sgl_proxythinker.programs.random_models.size import Size
from sgl_proxythinker.programs.random_models.weights import ATTENTION_GAIN, ROUTER_GAIN, Weights


@dataclass(frozen=True)
class Decoder:
    """How the layers of a family differ from those of others."""

    prefix: str = "model"  # of the names of its weights
    qkv_bias: bool = False
    qk_norm: bool = False
    experts: Literal["one by one", "stacked"] = "one by one"  # how a checkpoint holds them

    def write(self, weights: Weights, size: Size, rows: int, spread: float) -> None:
        """Add embedding, layers, norm and `lm_head`.

        Args:
            rows: of embedding and `lm_head`.
            spread: standard deviation of the logits.
        """
        width = size.hidden
        weights[f"{self.prefix}.embed_tokens.weight"] = weights.random.normal(rows, width)
        for index in range(size.layers):
            layer = f"{self.prefix}.layers.{index}"
            weights.norm(f"{layer}.input_layernorm", width)
            self._attention(weights, f"{layer}.self_attn", size)
            weights.norm(f"{layer}.post_attention_layernorm", width)
            if size.experts:
                self._experts(weights, f"{layer}.mlp", size)
            else:
                weights.gated_mlp(f"{layer}.mlp", width, size.mlp, bias=False)
        weights.norm(f"{self.prefix}.norm", width)
        weights.linear("lm_head", rows, width, spread)

    def _attention(self, weights: Weights, name: str, size: Size) -> None:
        width, q_width, kv_width = size.hidden, size.heads * size.head_dim, size.kv_heads * size.head_dim
        # Norms of queries and keys undo what their matrices scale.
        gain = 1.0 if self.qk_norm else ATTENTION_GAIN
        weights.linear(f"{name}.q_proj", q_width, width, gain, bias=self.qkv_bias)
        weights.linear(f"{name}.k_proj", kv_width, width, gain, bias=self.qkv_bias)
        weights.linear(f"{name}.v_proj", kv_width, width, bias=self.qkv_bias)
        weights.linear(f"{name}.o_proj", width, q_width)
        if self.qk_norm:
            weights.norm(f"{name}.q_norm", size.head_dim, ATTENTION_GAIN)
            weights.norm(f"{name}.k_norm", size.head_dim, ATTENTION_GAIN)

    def _experts(self, weights: Weights, name: str, size: Size) -> None:
        width, random = size.hidden, weights.random
        weights.linear(f"{name}.gate", size.experts, width, ROUTER_GAIN)
        if self.experts == "one by one":
            for index in range(size.experts):
                weights.gated_mlp(f"{name}.experts.{index}", width, size.mlp, bias=False)
            return
        gate_up = [random.matrix(2 * size.mlp, width).T for _ in range(size.experts)]
        down = [random.matrix(width, size.mlp).T for _ in range(size.experts)]
        weights[f"{name}.experts.gate_up_proj"] = torch.stack(gate_up)
        weights[f"{name}.experts.down_proj"] = torch.stack(down)
