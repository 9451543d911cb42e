"""The dimensions of a random model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """The dimensions of one model. The defaults divide by a tensor-parallel size of 1, 2 and 4."""

    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    mlp: int = 256
    width: int | None = None  # of the residual stream; None: that of all heads
    experts: int = 0  # of each layer, half of which read a token; 0: one MLP
    vision_layers: int = 2
    vision_heads: int = 4
    vision_head_dim: int = 32
    vision_mlp: int = 256
    rope_theta: float = 1e6
    full_vision_attention: bool = False  # else windows of 112 pixels, and full attention in the last block only

    def __post_init__(self) -> None:
        if self.head_dim < 32 or self.head_dim % 16:
            raise ValueError(f"head_dim is {self.head_dim}: M-RoPE splits it 1:3:3, so it must be 32, 48, 64, ...")
        if self.vision_head_dim % 4:
            raise ValueError(f"vision_head_dim is {self.vision_head_dim}: 2-D RoPE needs a multiple of 4")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads can't share {self.kv_heads} kv_heads evenly")

    @property
    def hidden(self) -> int:
        return self.width or self.heads * self.head_dim

    @property
    def vision_hidden(self) -> int:
        return self.vision_heads * self.vision_head_dim

    @property
    def tower(self) -> tuple[int | bool, ...]:
        """What the vision tower's and the merger's shapes and windows are made of."""
        vision = self.vision_layers, self.vision_heads, self.vision_head_dim, self.vision_mlp
        return *vision, self.full_vision_attention, self.hidden

    @property
    def mrope_section(self) -> list[int]:
        """Rotary frequencies for time, height and width, in the proportion of Qwen2-VL and 2.5-VL (16, 24, 24)."""
        time = self.head_dim // 8
        return [time, 3 * self.head_dim // 16, 3 * self.head_dim // 16]

    @property
    def interleaved_mrope_section(self) -> list[int]:
        """As `mrope_section`, in the proportion of Qwen3-VL (24, 20, 20)."""
        time = 3 * self.head_dim // 16
        space = (self.head_dim // 2 - time) // 2
        return [self.head_dim // 2 - 2 * space, space, space]


SMALL = Size()
WIDE = Size(layers=4, heads=8, kv_heads=4, mlp=512)
