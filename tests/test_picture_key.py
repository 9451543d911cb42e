"""Two pictures share a key only if the models see the same: by bytes, shape, grid and limits; and nobody can search."""

import numpy as np
import pytest
import torch
from PIL import Image

from sgl_proxythinker.pictures import key
from sgl_proxythinker.pictures.key import digest_of, digest_of_pixels, set_keys

FIRST = 1_000_000
BYTES = digest_of(b"a file")


@pytest.fixture
def item(sglang):
    """Makes SGLang's own item of a picture, with a grid and patches."""
    from sglang.srt.managers.schedule_batch import Modality, MultimodalDataItem

    def make(grid=(1, 8, 4), fill=0.0, offset=(1, 8)):
        count = grid[0] * grid[1] * grid[2]
        return MultimodalDataItem(
            modality=Modality.IMAGE, offsets=[offset], feature=torch.full((count, 6), fill),
            model_specific_data={"image_grid_thw": torch.tensor([grid])},
        )  # fmt: skip

    return make


def keyed(item, digests=(BYTES,), limits=None):
    set_keys([item], digests, limits or {}, FIRST)
    return item


def test_what_the_models_see_alike_has_one_key_wherever_it_stands(item):
    one, again = keyed(item()), keyed(item(offset=(30, 37)))
    assert (one.hash, one.pad_value) == (again.hash, again.pad_value)


@pytest.mark.parametrize(
    "other",
    [
        dict(digests=(digest_of(b"another file"),)),
        dict(limits={"image": {"max_pixels": 3136}}),
    ],
)
def test_another_file_or_limit_has_another_key(item, other):
    one, two = keyed(item()), keyed(item(), **other)
    assert one.hash != two.hash and one.pad_value != two.pad_value


@pytest.mark.parametrize("grid", [(1, 4, 8), (1, 2, 16), (2, 4, 4), (1, 8, 8)])
def test_another_grid_has_another_key(item, grid):
    """Red of 56 x 112 and of 112 x 56 have the same patches; width alone doesn't tell 2 x 16 from 4 x 8 transposed."""
    assert keyed(item()).hash != keyed(item(grid)).hash


def test_pictures_of_one_prompt_have_keys_of_their_own(item):
    other = digest_of(b"another file")
    first, second, third = item(), item(), item()
    set_keys([first, second, third], (BYTES, other, BYTES), {}, FIRST)
    assert first.hash == third.hash == keyed(item()).hash, "the same picture sent twice is one"
    assert second.hash == keyed(item(), (other,)).hash != first.hash


def test_where_pictures_and_items_do_not_pair_all_decide_each(item):
    other = digest_of(b"another file")
    keys = set()
    for digests in ((BYTES, other), (other, BYTES), (BYTES, BYTES)):
        set_keys([one := item()], digests, {}, FIRST)
        keys.add(one.hash)
    assert len(keys) == 3


def test_an_item_without_a_file_is_known_by_its_features(item):
    assert keyed(item(), ()).hash == keyed(item(), ()).hash
    assert keyed(item(), ()).hash != keyed(item(fill=1.0), ()).hash


def test_ids_have_62_bits_above_every_token_and_fit_int64(item):
    ids = {keyed(item(), (digest_of(str(number).encode()),)).pad_value for number in range(2000)}
    assert len(ids) == 2000
    assert min(ids) >= FIRST and max(ids) < FIRST + 2**62 < 2**63
    assert max(ids) > 2**61, "all bits are used"
    assert torch.tensor(sorted(ids)).dtype == torch.int64


def test_the_scheduler_keeps_the_key(item):
    one = keyed(item())
    before = one.hash, one.pad_value
    one.set_pad_value()
    assert (one.hash, one.pad_value) == before


def test_the_key_is_a_secret_of_this_start(item, monkeypatch):
    before = keyed(item()).hash, digest_of(b"a file")
    monkeypatch.setattr(key, "_SECRET", bytes(32))
    assert keyed(item(), (before[1],)).hash != before[0] and digest_of(b"a file") != before[1]


def test_a_picture_without_a_file_is_known_by_its_mode_size_and_pixels():
    pixels = np.zeros((4, 8), dtype=np.uint8)
    wide, tall = Image.fromarray(pixels), Image.fromarray(pixels.reshape(8, 4))
    assert digest_of_pixels(wide) == digest_of_pixels(wide.copy())
    assert len({digest_of_pixels(one) for one in (wide, tall, wide.convert("P"), wide.point(lambda x: 1))}) == 4


def test_ids_of_64_bits_find_their_places(sglang):
    """SGLang compares ids and clamps them only afterwards; 32 bits anywhere would lose the picture."""
    from sglang.srt.managers.mm_utils import _get_multimodal_mask

    ids = torch.tensor([5, FIRST + 2**62 - 1, FIRST + 2**62 - 1, FIRST + 2**30, 7])
    mask = _get_multimodal_mask(ids, torch.as_tensor([FIRST + 2**62 - 1]))
    assert mask.flatten().tolist() == [False, True, True, False, False]
