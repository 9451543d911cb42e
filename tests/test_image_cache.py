"""A model's cache of image embeddings holds no more memory than its size says, whatever it was given views of."""

import random

import pytest
import torch

WIDTH, MOST = 8, 64 * 8 * 4  # bytes: of 64 image tokens in float32


@pytest.fixture(scope="module")
def image_cache(sglang):
    from sgl_proxythinker import image_cache

    return image_cache


def held_bytes(cache) -> int:
    storages = (entry.embedding.untyped_storage() for entry in cache.mm_cache.values())
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("seed", range(5))
def test_memory_is_bounded_when_batches_are_embedded_in_one_call(image_cache, seed):
    """As SGLang fills it: images of a batch are views of one tensor, and some are asked about again."""
    cache, chance, seen = image_cache.ImageCache(MOST), random.Random(seed), {}
    for batch in range(100):
        counts = [chance.randint(1, 9) for _ in range(chance.randint(1, 8))]
        embedded = torch.randn(sum(counts), WIDTH)
        for place, view in enumerate(torch.split(embedded, counts)):
            seen[16 * batch + place] = view.clone()
            assert cache.set(16 * batch + place, image_cache.EmbeddingResult(embedding=view))
        for key in chance.sample(sorted(seen), min(4, len(seen))):
            found = cache.get_single(key)
            assert found is None or torch.equal(found.embedding, seen[key])
        assert held_bytes(cache) == cache.current_size <= MOST


def test_a_tensor_of_its_own_is_not_copied(image_cache):
    cache, tensor = image_cache.ImageCache(MOST), torch.randn(4, WIDTH)
    cache.set(1, image_cache.EmbeddingResult(embedding=tensor))
    assert cache.get_single(1).embedding is tensor


def test_the_guided_models_use_it(image_cache):
    from sgl_proxythinker.roles import Role
    from sgl_proxythinker.runners import HostedModel

    assert isinstance(HostedModel(Role.EXPERT, None, None)._image_cache, image_cache.ImageCache)
