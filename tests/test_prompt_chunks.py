"""Laws of a prompt that is read in chunks: the tree has what was seen to be sound, and the next chunk goes on."""

from array import array
from types import SimpleNamespace

import pytest
import torch

from sgl_proxythinker.patches.scheduler_stash_chunked_request import around
from sgl_proxythinker.server import mark_as_ours

CHUNK, CHUNKS = 24, 4


@pytest.fixture
def upstream(sglang):
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.managers.scheduler import Scheduler
    from sglang.srt.mem_cache.cache_init_params import CacheInitParams
    from sglang.srt.mem_cache.chunk_cache import ChunkCache
    from sglang.srt.mem_cache.radix_cache import RadixCache

    return SimpleNamespace(
        Req=Req, Scheduler=Scheduler, CacheInitParams=CacheInitParams, ChunkCache=ChunkCache, RadixCache=RadixCache
    )


def chunked(upstream, page_size, config=None):
    """A scheduler and its request, of which no chunk has been read. `page_size`: None: without a tree."""
    pool = SimpleNamespace(req_to_token=torch.zeros(1, CHUNK * CHUNKS, dtype=torch.int32))
    pool.write = pool.req_to_token.__setitem__
    allocator = SimpleNamespace(device="cpu", free_segment=lambda slots, start_pos: None)
    tree_class = upstream.RadixCache if page_size else upstream.ChunkCache
    tree = tree_class(upstream.CacheInitParams(False, pool, allocator, page_size or 1))
    args = SimpleNamespace()
    mark_as_ours(args, config, None, None)

    class Request(SimpleNamespace):
        set_extend_range, get_fill_ids = upstream.Req.set_extend_range, upstream.Req.get_fill_ids

    req = Request(
        req_pool_idx=0, full_untruncated_fill_ids=array("q", range(100, 100 + CHUNK * CHUNKS)), extra_key=None,
        prefix_indices=torch.empty(0, dtype=torch.int64), cache_protected_len=0, skip_radix_cache_insert=False,
        last_node=getattr(tree, "root_node", None),
    )  # fmt: skip
    return SimpleNamespace(server_args=args, tree_cache=tree, req_to_token_pool=pool), req


def read_chunk(scheduler, req, stash):
    """As SGLang's scheduler does: a chunk begins where the last one ended, and is stashed when the next is planned."""
    start = len(req.prefix_indices)
    req.set_extend_range(start, start + CHUNK)
    row = scheduler.req_to_token_pool.req_to_token[0]
    row[start : start + CHUNK] = torch.arange(start, start + CHUNK) + 1000
    stash(scheduler, req)
    assert req.prefix_indices.tolist() == row[: start + CHUNK].tolist() == list(range(1000, 1000 + start + CHUNK))
    assert req.prefix_indices.dtype == torch.int64
    assert (req.extend_range.start, req.extend_range.end) == (start, start + CHUNK)


@pytest.mark.parametrize("broken", [None, 0, 2])
@pytest.mark.parametrize("page_size", [1, 16, None], ids=["slots", "pages", "no tree"])
def test_the_newest_chunk_and_what_follows_a_broken_one_stay_out(upstream, page_size, broken):
    """Kills: a chunk in the tree before its verdict; a request that reads its first chunk again for ever."""
    scheduler, req = chunked(upstream, page_size, config=object())
    sound = 0
    for chunk in range(CHUNKS):
        if broken is None or chunk <= broken:
            sound = chunk * CHUNK
        read_chunk(scheduler, req, lambda *args: around(upstream.Scheduler.stash_chunked_request, *args))
        if page_size:
            assert scheduler.tree_cache.total_size() == sound // page_size * page_size
        # Under overlap the verdict on a chunk comes after it was stashed.
        req.skip_radix_cache_insert = broken is not None and chunk >= broken


def test_a_server_of_the_base_alone_is_sglangs_own(upstream):
    scheduler, req = chunked(upstream, 1)
    for chunk in range(CHUNKS):
        read_chunk(scheduler, req, lambda *args: around(upstream.Scheduler.stash_chunked_request, *args))
        assert scheduler.tree_cache.total_size() == (chunk + 1) * CHUNK
