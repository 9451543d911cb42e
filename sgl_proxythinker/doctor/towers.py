"""Do two checkpoints hold the same vision tower? Read from their files, so that it is known before a start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

_PART_OF_A_TOWER = "visual."
_16_BITS = 2


def equal_tower_bytes(one: str, other: str) -> int | None:
    """How large a vision tower is, with its merger, that two checkpoints hold bit for bit.

    Args:
        one, other: folders. A start compares what it has loaded: this is what it will find there unless a checkpoint is
            quantized while it is loaded.

    Returns:
        Bytes in 16 bits; 0: the towers differ, or there are none. None: a folder is not here, or has no weights.
    """
    tensors = [_tower(Path(folder)) for folder in (one, other)]
    mine, theirs = tensors
    if mine is None or theirs is None:
        return None
    if mine.keys() != theirs.keys():
        return 0
    numbers = 0
    for name in mine:
        pair = _read(mine[name], name), _read(theirs[name], name)
        if len({(each.dtype, each.shape) for each in pair}) > 1:
            return 0
        # As bytes: a NaN is not equal to itself, and 0 is to -0.
        if not torch.equal(*(each.reshape(-1).view(torch.uint8) for each in pair)):
            return 0
        numbers += pair[0].numel()
    return numbers * _16_BITS


def _tower(folder: Path) -> dict[str, Path] | None:
    """The file of each tensor of a folder's tower; None: no weights are there."""
    files = sorted(folder.glob("*.safetensors"))
    return {name: file for file in files for name in _names(file)} if files else None


def _names(file: Path) -> list[str]:
    with safe_open(file, "pt") as tensors:
        return [name for name in tensors.keys() if _PART_OF_A_TOWER in name]  # noqa: SIM118


def _read(file: Path, name: str) -> Any:
    with safe_open(file, "pt") as tensors:
        return tensors.get_tensor(name)
