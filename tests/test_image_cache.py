"""A cache of image embeddings holds no more memory than its size says, whatever it was given views of."""

import random

import pytest
import torch

WIDTH, MOST = 8, 64 * 8 * 4  # bytes: of 64 image tokens in float32


@pytest.fixture(scope="module")
def new_cache(sglang):
    from sglang.srt.mem_cache.multimodal_cache import MultiModalStaticCache

    from sgl_proxythinker.patches import multi_modal_static_cache_set as patch

    class Hooked(MultiModalStaticCache):
        def set(self, mm_hash, embedding, loc=None):
            return patch.around(MultiModalStaticCache.set, self, mm_hash, embedding, loc)

    return lambda: Hooked(MOST)


def entry(tensor):
    from sglang.srt.mem_cache.multimodal_cache import EmbeddingResult

    return EmbeddingResult(embedding=tensor)


def held_bytes(cache) -> int:
    storages = (kept.embedding.untyped_storage() for kept in cache.mm_cache.values())
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("seed", range(5))
def test_memory_is_bounded_when_batches_are_embedded_in_one_call(new_cache, seed):
    """As SGLang fills it: images of a batch are views of one tensor, and some are asked about again."""
    cache, chance, seen = new_cache(), random.Random(seed), {}
    for batch in range(100):
        counts = [chance.randint(1, 9) for _ in range(chance.randint(1, 8))]
        embedded = torch.randn(sum(counts), WIDTH)
        for place, view in enumerate(torch.split(embedded, counts)):
            seen[16 * batch + place] = view.clone()
            assert cache.set(16 * batch + place, entry(view))
        for key in chance.sample(sorted(seen), min(4, len(seen))):
            found = cache.get_single(key)
            assert found is None or torch.equal(found.embedding, seen[key])
        assert held_bytes(cache) == cache.current_size <= MOST


def test_a_tensor_of_its_own_is_not_copied(new_cache):
    cache, tensor = new_cache(), torch.randn(4, WIDTH)
    cache.set(1, entry(tensor))
    assert cache.get_single(1).embedding is tensor


def test_an_entry_keeps_its_type(new_cache):
    from sglang.srt.multimodal.evs import EVSEmbeddingResult

    cache = new_cache()
    pruned = EVSEmbeddingResult(embedding=torch.randn(8, WIDTH)[2:4], num_tokens_per_frame=[2])
    cache.set(1, pruned)
    kept = cache.get_single(1)
    assert type(kept) is EVSEmbeddingResult and kept.num_tokens_per_frame == [2]
    assert torch.equal(kept.embedding, pruned.embedding)
