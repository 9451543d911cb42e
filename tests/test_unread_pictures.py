"""Pixels are held by the ranks whose models look at them."""

import copy
from types import SimpleNamespace

import pytest
import torch

from sgl_proxythinker.guidance import Guidance
from sgl_proxythinker.pictures.key import digest_of, set_keys
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT
from sgl_proxythinker.step.unread_pictures import drop_unread_pictures

BASE_ALONE, GUIDED, TRACED = Guidance(), Guidance.of(0.5), Guidance.of(0.0, trace=True)


@pytest.fixture
def items(sglang):
    """Two pictures, one of them with a key already, and an item whose features are none."""
    from sglang.srt.managers.schedule_batch import Modality, MultimodalDataItem

    grid = {"image_grid_thw": torch.tensor([(1, 8, 4)])}
    features = (torch.ones(32, 6, dtype=torch.bfloat16), torch.rand(32, 6), None)
    items = [
        MultimodalDataItem(
            modality=Modality.IMAGE, offsets=[(1, 8)], feature=feature, model_specific_data=dict(grid), hash=number
        )
        for number, feature in enumerate(features)
    ]
    set_keys(items[:1], (digest_of(b"a file"),), {}, 1_000)
    return items


def taken(items, guidance, roles):
    before = [(item.feature, item.hash) for item in items]
    request = SimpleNamespace(mm_inputs=SimpleNamespace(mm_items=items), extra_key=guidance.tree_key(None))
    drop_unread_pictures(request, roles)
    return before


@pytest.mark.parametrize("roles", [[EXPERT], [AMATEUR], [EXPERT, AMATEUR]])
def test_what_the_base_alone_reads_costs_other_ranks_no_pixels(items, roles):
    """Kills: a zero picture in the cache of embeddings under the picture's own key, and other ids on this rank."""
    before = taken(items, BASE_ALONE, roles)
    for item, (feature, key) in list(zip(items, before, strict=True))[:2]:
        assert item.feature.untyped_storage().nbytes() == item.feature.element_size()
        assert (item.feature.shape, item.feature.dtype) == (feature.shape, feature.dtype)
        assert item.hash != key
    assert items[0].hash != items[1].hash, "keys of two pictures stay two"
    assert items[2].feature is None


@pytest.mark.parametrize("number", [0, 1], ids=["keyed", "not yet"])
def test_its_ids_are_those_of_the_other_ranks(items, number):
    """They address the same slots in the radix trees of all ranks."""
    elsewhere = copy.copy(items[number])
    elsewhere.set_pad_value()
    taken(items, BASE_ALONE, [EXPERT])
    assert items[number].pad_value == elsewhere.pad_value is not None


@pytest.mark.parametrize(
    ("guidance", "roles"),
    [(BASE_ALONE, [BASE]), (BASE_ALONE, [BASE, EXPERT]), (GUIDED, [EXPERT]), (GUIDED, [AMATEUR]), (TRACED, [AMATEUR])],
)
def test_what_a_model_of_the_rank_reads_is_left(items, guidance, roles):
    before = taken(items, guidance, roles)
    assert all(item.feature is feature and item.hash == key for item, (feature, key) in zip(items, before, strict=True))


def test_a_prompt_without_pictures_has_none(sglang):
    drop_unread_pictures(SimpleNamespace(mm_inputs=None, extra_key=None), [EXPERT])
