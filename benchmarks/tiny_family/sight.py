"""What the vision tower is taught beside the answers: the colour, shape and digit of each cell, in the image token that
holds its middle.

Published models of this architecture begin with a vision tower that was trained on pictures of its own. Ours begins
with none, and from answers alone digits stayed at chance for thousands of steps (`benchmarks/LOG.md`).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.tiny_family.forward import IMAGE_TOKENS, SIDE
from sgl_proxythinker.programs.random_models.pictures import MERGE_PATCHES
from sgl_proxythinker.tiny_family.scene import ARROWS, COLOURS, PIXELS, SHAPES, Scene, middle

IGNORED = -100
PARTS = (tuple(COLOURS), (*SHAPES, *ARROWS), tuple(range(10)))  # of a cell


def labels(scene: Scene) -> list[list[int]]:
    """[IMAGE_TOKENS][3]: where in each of PARTS the cell stands whose middle the token holds; IGNORED where none is."""
    side = SIDE // MERGE_PATCHES
    token = [int(middle(index, scene.size) * side / PIXELS) for index in range(scene.size)]
    of_tokens = [[IGNORED] * len(PARTS)] * IMAGE_TOKENS
    for index, cell in enumerate(scene.cells):
        row, column = divmod(index, scene.size)
        parts = zip(PARTS, (cell.colour, cell.shape, cell.digit), strict=True)
        of_tokens[token[row] * side + token[column]] = [names.index(name) for names, name in parts]
    return of_tokens


class Sight(nn.Module):
    """A linear layer that reads cells from image tokens; it is trained with the tower and then left behind."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.names = nn.Linear(hidden, sum(map(len, PARTS)))

    def loss(self, seen: torch.Tensor, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From image tokens [B, IMAGE_TOKENS, hidden] and their labels [B, IMAGE_TOKENS, 3] int64.

        Returns:
            The mean cross-entropy of the three parts, and [3] float32, the share of cells read right in each.
        """
        losses, right = [], []
        for part, logits in enumerate(self.names(seen).float().split([len(names) for names in PARTS], -1)):
            wanted = cells[..., part]
            losses.append(functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED))
            count = (wanted != IGNORED).sum()
            right.append(((logits.argmax(-1) == wanted) & (wanted != IGNORED)).sum() / count)
        return sum(losses) / len(PARTS), torch.stack(right).detach()
