"""The cache of image embeddings of one model, which holds no more memory than its size says.

SGLang embeds the images of a batch in one call and caches each as a view of what came out, so one image that is still
cached keeps the embeddings of all that were embedded with it, and only its own are counted.
"""

from __future__ import annotations

import dataclasses

import torch

from sgl_proxythinker.upstream.runtime import EmbeddingResult, MultiModalStaticCache


class ImageCache(MultiModalStaticCache):
    """SGLang's least-recently-used cache, whose entries own their memory.

    Args:
        max_size: bytes of all entries together.
    """

    def set(self, mm_hash: int, embedding: EmbeddingResult, loc: torch.Tensor | None = None) -> bool:
        """Keep an image's embedding, [image tokens, width]; False if it alone is larger than the cache."""
        tensor = embedding.embedding
        if mm_hash not in self.mm_cache and tensor.untyped_storage().nbytes() > tensor.nbytes:
            embedding = dataclasses.replace(embedding, embedding=tensor.clone(memory_format=torch.contiguous_format))
        return super().set(mm_hash, embedding, loc)
