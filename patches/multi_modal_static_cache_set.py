"""Let the caches of image embeddings hold no more memory than their size says.

Stock: embeds the images of a batch in one call and caches each as a view of what came out; one image that is still
       cached keeps the embeddings of all that were embedded with it, and only its own are counted. A card's memory grew
       by tens of MiB a minute beyond the plan.
Ours:  an entry that is part of a larger tensor is copied first.
Why a hook: the caches of base, expert and amateur and that of a server without proxies are all of this class.
"""

import dataclasses

import torch

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.mem_cache.multimodal_cache:MultiModalStaticCache.set",
    signature="(self, mm_hash, embedding, loc=None)",
    why="image embeddings would take several times the memory that is planned for them",
    until="a release has sgl-project/sglang PR #39120",
    checked={"0.5.17": "27149a429e49"},
)


def around(original, cache, mm_hash, embedding, loc=None):
    tensor = embedding.embedding
    if mm_hash not in cache.mm_cache and tensor.untyped_storage().nbytes() > tensor.nbytes:
        embedding = dataclasses.replace(embedding, embedding=tensor.clone(memory_format=torch.contiguous_format))
    return original(cache, mm_hash, embedding, loc)
