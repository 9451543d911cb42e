"""The key under which a picture's embedding and its tokens' keys and values are cached.

It is a keyed hash of everything that decides the embedding, and its secret is made anew at each start: nobody can make
a picture whose key is that of another's, nor tell from outside what is cached. SGLang's own is an unkeyed hash of the
flattened patches, cut to 30 bits: pictures of other shapes share it, and two alike are found by searching.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

_SECRET = secrets.token_bytes(32)  # of this start: the main process makes every key, schedulers get them

_ID_BITS = 62  # ids of the radix tree are signed 64-bit integers, and SGLang's begin at `first_id`
_HASH_BYTES = 20


def digest_of(data: bytes) -> bytes:
    """[32] bytes, of an encoded picture as it was sent, whichever way it came."""
    return _hash(b"bytes", data)


def digest_of_pixels(picture: Any) -> bytes:
    """[32] bytes, of a PIL picture that came without a file."""
    return _hash(b"pixels", repr((picture.mode, picture.size)).encode(), picture.tobytes())


def set_keys(items: Sequence[Any], digests: Sequence[bytes], limits: Any, first_id: int) -> None:
    """Give SGLang's multimodal items their hash and the id that stands for them in the radix tree.

    Args:
        items: SGLang's `MultimodalDataItem`s of one request, processed.
        digests: of its pictures, in their order; as many as image items, or all of them decide each item.
        limits: what else decides an embedding and is the same for the whole server, as pixel limits.
        first_id: ids below it are tokens.
    """
    images = [item for item in items if item.is_image()]
    each = [[digest] for digest in digests] if len(images) == len(digests) else [list(digests)] * len(images)
    told = {id(item): (place, own) for place, (item, own) in enumerate(zip(images, each, strict=True))}
    for item in items:
        place, own = told.get(id(item), (0, []))
        parts = [*own, str(place).encode()] if len(own) > 1 else own
        if not own:  # no picture of ours: its features are all that is known of it, where they are at hand
            feature = item.feature if item.feature is not None else item.precomputed_embeddings
            if not isinstance(feature, torch.Tensor | np.ndarray):
                continue
            parts = [_raw(feature)]
        described = repr((item.modality.name, _shape(item.feature), _plain(item.model_specific_data), _plain(limits)))
        item.hash = int.from_bytes(_hash(b"item", described.encode(), *parts)[:_HASH_BYTES], "big")
        item.pad_value = first_id + item.hash % (1 << _ID_BITS)


def _hash(*parts: bytes) -> bytes:
    state = hashlib.blake2b(key=_SECRET, digest_size=32)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if hasattr(value, "shape") else None


def _plain(value: Any) -> Any:
    """Grids, sizes and the like, in a form whose `repr` says all of it."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return _shape(value), str(value.dtype), _hash(_raw(value)).hex()
    if isinstance(value, dict):
        return sorted((str(name), _plain(entry)) for name, entry in value.items())
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def _raw(value: torch.Tensor | np.ndarray) -> bytes:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(value).tobytes()
