"""Pixels of a picture that no model of this rank reads: freed when the request arrives, and not when it has ended."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from sgl_proxythinker.guidance import readers_of

_UNREAD = 0x756E72656164  # any number


def drop_unread_pictures(request: Any, roles: Collection[str]) -> None:
    """Free the pixels of a request's pictures where its tokens are read by models of other ranks alone.

    What takes their place has their shape and no bytes of its own: with logprobs of a prompt in its batch, models run
    for requests that don't read them, and nobody looks at what they make of these.

    Args:
        request: SGLang's `TokenizedGenerateReqInput`.
        roles: the models of this rank.
    """
    if request.mm_inputs is None or not readers_of(request.extra_key).isdisjoint(roles):
        return
    for item in request.mm_inputs.mm_items:
        if isinstance(item.feature, torch.Tensor):
            # The ids that the picture gets in the radix tree are made of the pixels, and the same on all ranks.
            item.set_pad_value()
            # Embeddings are cached by this: what is made of no pixels must not be taken for the picture's.
            item.hash ^= _UNREAD
            item.feature = item.feature.new_zeros(()).expand(item.feature.shape)
