"""A step's tokens read for markers by one kernel on a GPU. Its specification is in `markers`; nothing else imports this
module.

A program has a request to itself: it compares the marker with what ends at each new byte, and writes the last bytes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sgl_proxythinker.laws import MAX_MARKER_BYTES
from sgl_proxythinker.step.marked_texts import KEPT, NO_BYTE, KnownTexts, MarkedChains, MarkedRequests

_ENDS = 16  # bytes of a token at a time; few tokens have more
_WARPS = 4


def read_by_kernel(
    texts: KnownTexts, marked: MarkedRequests, slots: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """`markers.read_in_torch` for tensors of one CUDA device, on its current stream."""
    past_marker = torch.empty(len(slots), dtype=torch.bool, device=slots.device)
    _run(texts, marked, slots, tokens, None, past_marker, 1)
    return past_marker


def along_by_kernel(
    texts: KnownTexts, marked: MarkedRequests, slots: torch.Tensor, chains: torch.Tensor
) -> MarkedChains:
    """`markers.along_in_torch` for tensors of one CUDA device, on its current stream."""
    last_bytes = torch.empty(*chains.shape, KEPT, dtype=texts.last_bytes.dtype, device=slots.device)
    past_marker = torch.empty(chains.shape, dtype=torch.bool, device=slots.device)
    _run(texts, marked, slots, chains, last_bytes, past_marker, chains.shape[1])
    return MarkedChains(slots, marked.on_device, last_bytes, past_marker)


def _run(
    texts: KnownTexts,
    marked: MarkedRequests,
    slots: torch.Tensor,
    tokens: torch.Tensor,
    chain_bytes: torch.Tensor | None,
    chain_past: torch.Tensor,
    each: int,
) -> None:
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device_of(slots):
        _read[(len(slots),)](
            texts.sizes,
            texts.starts,
            texts.bytes,
            texts.last_bytes,
            texts.past_marker,
            marked.markers,
            marked.markers.shape[1],
            # Of one type, whatever a batch has: another would be compiled while requests wait.
            slots.long().contiguous(),
            tokens.long().contiguous(),
            each,
            chain_bytes,
            chain_past,
            KEPT=KEPT,
            NO_BYTE=NO_BYTE,
            PLACES=triton.next_power_of_2(MAX_MARKER_BYTES),
            ENDS=_ENDS,
            num_warps=_WARPS,
        )


@triton.jit
def _byte(token, last_bytes, place, mask, KEPT: tl.constexpr):
    """Of a text's last bytes with those of a token after them, the byte at `place`."""
    kept = tl.load(last_bytes + place, mask=mask & (place < KEPT), other=0)
    new = tl.load(token + place - KEPT, mask=mask & (place >= KEPT), other=0)
    return tl.where(place < KEPT, kept, new)


@triton.jit(
    do_not_specialize=["width", "each"],
    do_not_specialize_on_alignment=[
        "sizes", "starts", "bytes", "last_bytes", "past_marker", "markers", "slots", "tokens", "chain_bytes",
        "chain_past",
    ],
)  # fmt: skip
def _read(
    sizes,
    starts,
    bytes,
    last_bytes,
    past_marker,
    markers,
    width,
    slots,
    tokens,
    each,
    chain_bytes,
    chain_past,
    KEPT: tl.constexpr,
    NO_BYTE: tl.constexpr,
    PLACES: tl.constexpr,
    ENDS: tl.constexpr,
):
    """Add `each` tokens to the text of request program_id(0), and say of each whether the marker has been written.

    What is written is kept in the request's slot, or for each token in `chain_bytes`, where that is given.
    """
    request = tl.program_id(0).to(tl.int64)
    # Bytes from the end of a marker backwards; its last one is there, unless the request has none.
    places = tl.arange(0, PLACES)
    marker = tl.load(markers + request * width + width - 1 - places, mask=places < width, other=NO_BYTE)
    has_marker = tl.load(markers + request * width + width - 1) != NO_BYTE
    slot = tl.load(slots + request)
    source = last_bytes + slot * KEPT
    past = has_marker & (tl.load(past_marker + slot) != 0)
    for place in range(0, each):
        at = request * each + place
        if has_marker:
            id = tl.load(tokens + at)
            size = tl.load(sizes + id)
            token = bytes + tl.load(starts + id)
            for first in range(0, size, ENDS):
                ends = first + tl.arange(0, ENDS)
                is_new = (ends < size)[:, None]
                text = _byte(token, source, KEPT + ends[:, None] - places[None, :], is_new, KEPT)
                is_equal = (text == marker[None, :]) | (marker == NO_BYTE)[None, :]
                past = past | (tl.max(tl.min((is_equal & is_new).to(tl.int32), 1), 0) != 0)
            target = source
            if chain_bytes is not None:
                target = chain_bytes + at * KEPT
            left = _byte(token, source, size + places, places < KEPT, KEPT)
            # All threads have read what any of them overwrites, and then see what the others wrote.
            tl.debug_barrier()
            tl.store(target + places, left, mask=places < KEPT)
            tl.debug_barrier()
            source = target
        tl.store(chain_past + at, past)
    if chain_bytes is None:
        if has_marker:
            tl.store(past_marker + slot, past)
