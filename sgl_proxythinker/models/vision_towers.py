"""One vision tower where two models' are equal: RL often leaves it as it was. A tower has its merger with it.

Towers are compared as they are loaded. Configs of one and the same tower differ (a fine-tune is saved by another
release of transformers), and those of different ones may agree (a quantization that is made while loading).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sgl_proxythinker.placement import GIB, Placement
from sgl_proxythinker.roles import BASE, Role

if TYPE_CHECKING:
    from sgl_proxythinker.models.hosted import HostedModel

logger = logging.getLogger(__name__)

_PLAIN = (bool, int, float, str, torch.dtype, torch.device)


def share_equal_towers(models: Mapping[Role, HostedModel], placement: Placement, world: Any) -> None:
    """Let models that run on the same ranks, with equal towers there, see with one. Collective.

    On different ranks they see at the same time, each with a tower on its own GPU: one that waits for the other's
    embeddings would begin no earlier.

    Args:
        models: those of this rank.
        placement: which ranks run what.
        world: SGLang's `GroupCoordinator` over all ranks.
    """
    shared: set[Role] = set()
    for owner, role in combinations(placement.ranks, 2):
        if role in shared:
            continue
        obstacle = _obstacle(models, owner, role, placement, world)
        speaks = world.rank_in_group == placement.ranks[role][0]
        if obstacle is None:
            shared.add(role)
            spared = models[role].share_vision_tower(models[owner]) if role in models else 0
            if speaks:
                logger.info(
                    "proxythinker: %s and %s share a vision tower: each picture is encoded once for both, and %.2f GiB "
                    "of weights are held once", owner, role, spared / GIB,
                )  # fmt: skip
        elif speaks and owner != BASE:  # whose tower is as wide as its text, mostly: no news
            logger.info("proxythinker: %s and %s share no vision tower: %s", owner, role, obstacle)


def _obstacle(
    models: Mapping[Role, HostedModel], owner: Role, role: Role, placement: Placement, world: Any
) -> str | None:
    """Why two models can't share a tower, the same on all ranks; None where they can. Collective."""
    if placement.ranks[owner] != placement.ranks[role]:
        return "they run on different ranks"
    here = None
    if role in models:
        one, other = models[owner].vision_tower, models[role].vision_tower
        if one is None or other is None:
            here = "not both have one"
        elif difference := first_difference(one, other):
            here = f"{difference} differs"
    # Shards of two towers may be equal on one rank and not on another.
    return next(filter(None, world.all_gather_object(here)), None)


def first_difference(one: nn.Module, other: nn.Module) -> str | None:
    """What of two towers is not the same bit for bit, by its dotted name; None: they compute the same of any picture.

    What a layer computes is its class, its numbers (heads, a window, an epsilon) and its tensors.
    """
    layers, others = dict(one.named_modules()), dict(other.named_modules())
    for name, layer in layers.items():
        difference = _difference_of_layers(layer, others[name]) if name in others else "__class__"
        if difference is not None:
            return f"{name}.{difference}".removeprefix(".")
    return next((name for name in others if name not in layers), None)


def _difference_of_layers(one: nn.Module, other: nn.Module) -> str | None:
    if type(one) is not type(other):
        return "__class__"
    mine, theirs = _attributes(one), _attributes(other)
    return next((name for name in {**mine, **theirs} if not _are_same(mine.get(name), theirs.get(name))), None)


def _attributes(layer: nn.Module) -> dict[str, Any]:
    """Of a layer alone, without those inside it. Some kernels' tensors are neither parameters nor buffers."""
    return {**vars(layer), **layer._parameters, **layer._buffers}


def _are_same(one: Any, other: Any) -> bool:
    """By bits for tensors, by value for numbers and lists, else by class and the numbers in it (quantizations')."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return _have_same_bits(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_are_same, one, other))
    if isinstance(one, _PLAIN):
        return one == other
    return _numbers(one) == _numbers(other)


def _numbers(thing: Any) -> dict[str, Any]:
    return {name: value for name, value in getattr(thing, "__dict__", {}).items() if isinstance(value, _PLAIN)}


def _have_same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Compared where they are, one tensor at a time: a hash would take all of both to the host first."""
    layouts = [(each.dtype, each.device, each.shape, each.stride()) for each in (one, other)]
    if layouts[0] != layouts[1]:
        return False
    # As bytes: a NaN is not equal to itself, and 0 is to -0.
    return torch.equal(*(each.detach().reshape(-1).view(torch.uint8) for each in (one, other)))
