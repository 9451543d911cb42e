"""Random weights that are not careless: greedy text keeps changing, and depends on the picture and on alpha."""

from __future__ import annotations

import math

import torch

# Each matrix keeps the scale of its input, so that a layer's attention, its MLP, the last token and the picture weigh
# about the same. With the usual 0.02 everywhere, attention averages over the whole prompt, all prompts look alike and
# greedy text is one token for ever. The three below were tried on seeds 0, 1, 3 and 6: about 22 different tokens in 24,
# and most pictures change the first token.
ATTENTION_GAIN = 2.0  # of queries and keys: attention picks few positions, and other ones at each step
BIAS = 0.1  # larger ones add up to a direction that all positions share, and one token wins half of the steps
# Of a router's scores. Which experts read a token jumps where two scores are equal, and what 16 bits round decides. So
# the last one that reads it must count for little, as where 8 of 128 do: with this gain and 8 of 16 an oracle in
# float16 is 0.2 at most away from one in float32 (its root mean square is 0.03, as with 2 or 3, and 0.05 with 1 or 8),
# and up to 0.67 with gain 1 and 2 of 4.
ROUTER_GAIN = 4.0
NORM_JITTER = 0.1  # norm weights are not all 1, so that loading the wrong one shows


class Random:
    """Normal numbers from one seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def matrix(self, rows: int, columns: int, gain: float = 1.0) -> torch.Tensor:
        """[rows, columns] float32 that maps inputs of standard deviation 1 to outputs of `gain`."""
        return self.normal(rows, columns) * (gain / math.sqrt(columns))


class Weights(dict[str, torch.Tensor]):
    """The weights of one model by their published names, float32, drawn in the order in which they are named."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def linear(self, name: str, outputs: int, inputs: int, gain: float = 1.0, bias: bool = False) -> None:
        self[f"{name}.weight"] = self.random.matrix(outputs, inputs, gain)
        if bias:
            self[f"{name}.bias"] = BIAS * self.random.normal(outputs)

    def norm(self, name: str, width: int, gain: float = 1.0, bias: bool = False) -> None:
        """Of RMSNorm; of LayerNorm, if it has a bias."""
        self[f"{name}.weight"] = gain * (1 + NORM_JITTER * self.random.normal(width))
        if bias:
            self[f"{name}.bias"] = BIAS * self.random.normal(width)

    def gated_mlp(self, name: str, width: int, inner: int, bias: bool) -> None:
        self.linear(f"{name}.gate_proj", inner, width, bias=bias)
        self.linear(f"{name}.up_proj", inner, width, bias=bias)
        self.linear(f"{name}.down_proj", width, inner, bias=bias)

    def patch_embedding(self, name: str, width: int, frames: int, pixels: int, bias: bool = False) -> None:
        """Of `frames` frames of `pixels` times `pixels`, in three colours."""
        patch = self.random.matrix(width, 3 * frames * pixels**2)
        self[f"{name}.weight"] = patch.view(width, 3, frames, pixels, pixels)
        if bias:
            self[f"{name}.bias"] = BIAS * self.random.normal(width)
