"""The embeddings of a prefill's ids and pictures: what a language model begins with.

SGLang embeds in the forward of each model, and waits for the device in it several times (lengths, masks, pixels that
are copied). With the language model of another before it in the queue, each wait is one for all of that. So models that
read one batch embed it one after the other, and then read.

What a vision tower makes of a picture lies in a cache by the picture's key, so it can be made earlier, where the device
would have nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from sgl_proxythinker.models.groups import swapped
from sgl_proxythinker.upstream.runtime import ForwardBatch, MultiModalStaticCache, mm_utils


class PromptPart(NamedTuple):
    """What a prefill reads of a prompt with pictures."""

    pictures: Any  # SGLang's `MultimodalInputs`, of the whole prompt
    before: int  # tokens that were read before
    here: int  # tokens that are read now


@torch.no_grad()
def encode(
    model: Any,
    parts: Sequence[PromptPart],
    cache: MultiModalStaticCache,
    token_bytes: int,
    device: str,
    copies: torch.cuda.Stream | None,
) -> bool:
    """Let a vision tower encode what a cache lacks of a prefill's pictures, for `embed`, which looks there first.

    It returns when the work is launched. Nothing is done where the cache has no room for all of it: `embed` needs none.

    Args:
        model: SGLang's, of an architecture with pictures.
        parts: of the prefill.
        cache: of this model's embeddings, and the one that SGLang looks into meanwhile.
        token_bytes: of one embedding.
        copies: pixels are copied on this stream, beside what is under way on the current one.

    Returns:
        Whether there is any.
    """
    read = [_read_images(place, part) for place, part in enumerate(parts)]
    lacking = {
        item.hash: (item, end - start + 1)
        for request in read
        for item, (start, end) in zip(request.items, request.items_offset, strict=True)
        if not cache.has(item.hash)
    }
    if not lacking or sum(tokens for _, tokens in lacking.values()) * token_bytes > cache.max_size:
        return False
    with _pixels_on_device([item for item, _ in lacking.values()], device, copies):
        mm_utils._batch_encode_per_image_misses(model.get_image_feature, read, torch.device(device))
    return True


def _read_images(place: int, part: PromptPart) -> Any:
    """The images of a prompt of which a prefill reads tokens, as SGLang's tower wants them."""
    here = [
        item
        for item in part.pictures.mm_items
        if item.is_image() and len(item.offsets or ()) == 1 and isinstance(item.feature, torch.Tensor)
        for start, end in item.offsets
        if start < part.before + part.here and end >= part.before
    ]
    offsets = [item.offsets[0] for item in here]
    return mm_utils.PerImageRequestInfo(place, here, offsets, part.before, part.here)


@contextmanager
def _pixels_on_device(items: Iterable[Any], device: str, copies: torch.cuda.Stream | None) -> Iterator[None]:
    """While it is open pixels are on the device; those in the host's memory stay there for what is read later."""
    kept = [(item, item.feature) for item in items]
    if copies is not None:
        used_on = torch.cuda.current_stream()
        with torch.cuda.stream(copies):
            for item, pixels in kept:
                item.feature = pixels.to(device, non_blocking=True)
                item.feature.record_stream(used_on)
        used_on.wait_stream(copies)
    try:
        yield
    finally:
        for item, pixels in kept:
            item.feature = pixels


@torch.no_grad()
def embed(model: Any, batch: ForwardBatch) -> Any:
    """What SGLang's forward of a model makes of a batch before its language model runs, for `embedded`.

    Ids of pictures are clamped in place, which other models look for.

    Args:
        model: SGLang's, of an architecture with pictures.
        batch: a prefill of T tokens, with pictures.

    Returns:
        What `mm_utils.embed_mm_inputs` does: [T, hidden] in the model's dtype, and a dict of more.
    """
    lengths = zip(batch.mm_inputs, batch.extend_prefix_lens_cpu, batch.extend_seq_lens_cpu, strict=True)
    pictures, before, here = zip(*(each for each in lengths if each[0] is not None), strict=True)
    return mm_utils.embed_mm_inputs(
        mm_inputs_list=list(pictures),
        extend_prefix_lens=list(before),
        extend_seq_lens=list(here),
        input_ids=batch.input_ids,
        input_embedding=model.model.get_input_embeddings(),
        multimodal_model=model,
        use_deepstack=getattr(model, "use_deepstack", {}),
    )


@contextmanager
def embedded(made: Any) -> Iterator[None]:
    """While it is open, the forward of the model takes what `embed` made of its batch.

    Raises:
        RuntimeError: the model says how it wants to be embedded, which `embed` didn't know.
    """

    def take(data_embedding_func_mapping: Any = None, placeholder_tokens: Any = None, **_: Any) -> Any:
        if data_embedding_func_mapping is not None or placeholder_tokens is not None:
            raise RuntimeError("this architecture embeds by functions or places of its own: let `embed` pass them")
        return made

    with swapped(mm_utils, "embed_mm_inputs", take):
        yield
