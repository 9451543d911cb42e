"""Laws of when two models see with one tower: the smallest difference of theirs, on any rank, keeps them apart."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from roster import TRIPLE
from sgl_proxythinker.models.vision_towers import first_difference, share_equal_towers
from sgl_proxythinker.placement import Placement
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT, Role


class Quantization:
    def __init__(self) -> None:
        self.bits = 8


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.windows, self.quantization, self.packed = [0, 3], Quantization(), torch.randn(3)
        self.norm, self.act, self.proj = nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width)
        self.register_buffer("frequencies", torch.randn(2), persistent=False)
        self.register_buffer("scale", torch.tensor(0.5))


class Tower(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.heads = 2
        self.blocks = nn.ModuleList(Block(width).to(dtype) for dtype in (torch.float32, torch.bfloat16))


def pair() -> tuple[Tower, Tower]:
    tower = Tower()
    return tower, copy.deepcopy(tower)


def tensors(tower: nn.Module) -> dict[str, torch.Tensor]:
    unregistered = {f"{name}.packed": layer.packed for name, layer in tower.named_modules() if hasattr(layer, "packed")}
    return {**dict(tower.named_parameters()), **dict(tower.named_buffers()), **unregistered}


def flip(tensor: torch.Tensor, byte: int, bit: int) -> None:
    tensor.detach().reshape(-1).view(torch.uint8)[byte] ^= 1 << bit


# Bit for bit


def test_copies_are_equal_whatever_bits_they_hold():
    """Also where a number is no number: two towers that are broken alike are the same."""
    tower, other = pair()
    assert first_difference(tower, other) is None
    for each in (tower, other):
        each.blocks[0].proj.weight.data[1, 1] = torch.nan
    assert first_difference(tower, other) is None


@pytest.mark.parametrize("name", tensors(Tower()))
def test_one_bit_of_any_tensor_makes_a_difference_and_is_named(name):
    """Kills: a tensor that isn't compared, and one that is compared by value (the sign of a zero, NaNs)."""
    tower, other = pair()
    count = tensors(tower)[name].untyped_storage().nbytes()
    for start in (None, 0.0, torch.nan):
        for each in (tower, other):
            if start is not None:
                tensors(each)[name].data.fill_(start)
        for byte, bit in ((0, 0), (count - 1, 7), (count // 2, 3)):
            flip(tensors(other)[name], byte, bit)
            assert first_difference(tower, other) == first_difference(other, tower) == name
            flip(tensors(other)[name], byte, bit)
            assert first_difference(tower, other) is None


def change_epsilon(tower):
    tower.blocks[1].norm.eps *= 2


def change_list(tower):
    tower.blocks[0].windows[1] = 2


def shorten_list(tower):
    del tower.blocks[0].windows[1]


def change_quantization(tower):
    tower.blocks[1].quantization.bits = 4


def change_layer(tower):
    tower.blocks[1].act = nn.SiLU()


def change_dtype(tower):
    tower.blocks[1].proj.half()


def change_shape(tower):
    tower.blocks[0].proj.weight.data = tower.blocks[0].proj.weight.data.reshape(2, 8)


def change_layout(tower):
    tower.blocks[0].proj.weight.data = tower.blocks[0].proj.weight.data.t().contiguous().t()


def drop_bias(tower):
    tower.blocks[0].proj.bias = None


def drop_layer(tower):
    del tower.blocks[1]


def change_heads(tower):
    tower.heads = 4


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (change_epsilon, "blocks.1.norm.eps"),
        (change_list, "blocks.0.windows"),
        (shorten_list, "blocks.0.windows"),
        (change_quantization, "blocks.1.quantization"),
        (change_layer, "blocks.1.act.__class__"),
        (change_dtype, "blocks.1.proj.weight"),
        (change_shape, "blocks.0.proj.weight"),
        (change_layout, "blocks.0.proj.weight"),
        (drop_bias, "blocks.0.proj.bias"),
        (drop_layer, "blocks"),
        (change_heads, "heads"),
    ],
)
def test_what_else_changes_a_layer_makes_a_difference(change, name):
    """Kills: towers told apart by their weights alone."""
    tower, other = pair()
    change(other)
    assert first_difference(tower, other).startswith(name)
    assert first_difference(other, tower) is not None


# Which models of which ranks


@dataclass
class Model:
    """What of a hosted model is asked."""

    vision_tower: nn.Module | None
    owner: Model | None = None

    def share_vision_tower(self, owner: Model) -> int:
        self.vision_tower, self.owner = owner.vision_tower, owner
        return 1 << 30


@dataclass
class World:
    """Ranks that are threads; one that takes part in another number of collectives than its peers waits for ever."""

    size: int
    said: dict[int, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, timeout=10)

    def of(self, rank: int) -> Member:
        return Member(self, rank)


@dataclass
class Member:
    world: World
    rank_in_group: int

    def all_gather_object(self, told: object) -> list[object]:
        self.world.said[self.rank_in_group] = told
        self.world.barrier.wait()
        everyones = [self.world.said[rank] for rank in range(self.world.size)]
        self.world.barrier.wait()
        return everyones


def shared_by(placement: Placement, towers: Mapping[Role, nn.Module | None], spoiled: int | None = None) -> list[dict]:
    """Whose tower each model has after the start, on each rank.

    Args:
        spoiled: the rank whose shard of the amateur's tower is another one.
    """
    world = World(placement.world_size)

    def start(rank: int) -> dict[Role, Role]:
        models = {role: Model(copy.deepcopy(towers[role])) for role in placement.roles_on(rank)}
        if rank == spoiled:
            flip(models[AMATEUR].vision_tower.blocks[1].proj.weight, 0, 0)
        share_equal_towers(models, placement, world.of(rank))
        return {role: other for role, model in models.items() for other in models if model.owner is models[other]}

    with ThreadPoolExecutor(world.size) as pool:
        return list(pool.map(start, range(world.size)))


EVERYWHERE = Placement("shared", 2, dict.fromkeys(TRIPLE, (0, 1)), "of this test")
SPLIT = Placement("split", 2, {BASE: (0, 1), EXPERT: (0,), AMATEUR: (1,)}, "of this test")
DEDICATED = Placement("dedicated", 3, {BASE: (0,), EXPERT: (1,), AMATEUR: (2,)}, "of this test")


@pytest.fixture
def towers() -> dict[Role, nn.Module]:
    tower, equal = pair()
    return {BASE: Tower(8), EXPERT: tower, AMATEUR: equal}


def test_equal_towers_are_one_on_all_ranks(towers, caplog):
    caplog.set_level("INFO")
    assert shared_by(EVERYWHERE, towers) == [{AMATEUR: EXPERT}] * 2
    [line] = caplog.messages
    assert "expert and amateur share a vision tower" in line and "1.00 GiB" in line


@pytest.mark.parametrize("spoiled", [0, 1])
def test_shards_that_differ_on_one_rank_keep_all_ranks_apart(towers, spoiled, caplog):
    """Kills: a decision of each rank's own. Of half a tower that is shared the other half would be another's."""
    caplog.set_level("INFO")
    assert shared_by(EVERYWHERE, towers, spoiled) == [{}, {}]
    [line] = caplog.messages
    assert "expert and amateur share no vision tower: blocks.1.proj.weight differs" in line


@pytest.mark.parametrize("placement", [SPLIT, DEDICATED], ids=str)
def test_models_of_different_ranks_keep_their_towers_and_the_log_says_why(towers, placement, caplog):
    caplog.set_level("INFO")
    assert shared_by(placement, towers) == [{}] * placement.world_size
    [line] = caplog.messages
    assert "expert and amateur share no vision tower: they run on different ranks" in line


def test_three_equal_towers_are_one(towers):
    assert shared_by(EVERYWHERE, dict.fromkeys(TRIPLE, towers[EXPERT])) == [{EXPERT: BASE, AMATEUR: BASE}] * 2


def test_models_without_towers_share_none(towers):
    assert shared_by(EVERYWHERE, dict.fromkeys(TRIPLE)) == [{}, {}]
    assert shared_by(EVERYWHERE, {**towers, AMATEUR: None}) == [{}, {}]
