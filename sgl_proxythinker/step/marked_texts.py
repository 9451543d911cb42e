"""Markers of requests, and the ends of what requests have written, as tensors on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from sgl_proxythinker.laws import MAX_MARKER_BYTES
from sgl_proxythinker.step.rows import to_device

KEPT = MAX_MARKER_BYTES - 1  # bytes of a request
NO_BYTE = -1


class MarkedRequests(NamedTuple):
    """The requests of a step whose law has a marker, M of B."""

    places: list[int]  # [M]
    on_device: torch.Tensor  # [M] int64
    texts: list[bytes]  # [M]: their markers
    # [B, W] int16: these, each with its end in the last column; NO_BYTE before them, and where a request has none.
    markers: torch.Tensor

    @classmethod
    def of(cls, texts: Mapping[int, bytes], size: int, device: str | torch.device) -> MarkedRequests:
        """From the marker of each request that has one, by its place among the batch's `size`."""
        places, markers = list(texts), list(texts.values())
        padded = ends_of([texts.get(place, b"") for place in range(size)], max(map(len, markers)))
        on_device = to_device(places, torch.int64, device)
        return cls(places, on_device, markers, to_device(padded, torch.int16, device))


class KnownTexts(NamedTuple):
    """The bytes of each token, and of each slot's text the last ones, on the device."""

    sizes: torch.Tensor  # [ids] int64
    starts: torch.Tensor  # [ids] int64, in `bytes`
    bytes: torch.Tensor  # [sum of sizes] int16
    longest: int  # of the sizes
    last_bytes: torch.Tensor  # [slots, KEPT] int16; NO_BYTE before a text's first
    past_marker: torch.Tensor  # [slots] bool


class MarkedChains(NamedTuple):
    """What B requests have written after each of n tokens, if those before it count; M of them have a marker."""

    slots: torch.Tensor  # [B] int64
    requests: torch.Tensor  # [M] int64
    last_bytes: torch.Tensor  # [B, n, KEPT] int16; undefined for the others
    past_marker: torch.Tensor  # [B, n] bool; False for the others


def ends_of(texts: Sequence[bytes], size: int) -> list[list[int]]:
    """The last bytes of each text, as many for each; those of a shorter one stand at the end."""
    return [[*[NO_BYTE] * (size - len(text)), *text[-size:]] for text in texts]
