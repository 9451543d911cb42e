"""Whether what a request has generated holds the marker of its law: asked of every token, on the device.

A marker is a text, and tokens are pieces of one: it may begin and end in the middle of a token. So bytes are compared.
Of each slot of SGLang's `req_to_token_pool` the last bytes that its request has written are kept, as many as stand in a
marker before its end, and whether the marker was among them. Each step adds the tokens that it reads. Nobody waits for
them: where the scheduler runs ahead, the host doesn't know them yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch

from sgl_proxythinker.laws import MAX_MARKER_BYTES
from sgl_proxythinker.step.rows import to_device

_KEPT = MAX_MARKER_BYTES - 1  # bytes of a request
_NO_BYTE = -1


class MarkedRequests(NamedTuple):
    """The requests of a step whose law has a marker, M of B."""

    places: list[int]  # [M]
    on_device: torch.Tensor  # [M] int64
    texts: list[bytes]  # [M]: their markers
    markers: torch.Tensor  # [M, W] int16: these, each with its end in the last column; _NO_BYTE before them

    @classmethod
    def of(cls, texts: Mapping[int, bytes], device: str | torch.device) -> MarkedRequests:
        """From the marker of each request that has one, by its place in the batch."""
        places, markers = list(texts), list(texts.values())
        padded = _ends_of(markers, max(map(len, markers)))
        on_device = to_device(places, torch.int64, device)
        return cls(places, on_device, markers, to_device(padded, torch.int16, device))


class MarkedChains(NamedTuple):
    """What M of B requests have written after each of n tokens, if those before it count."""

    slots: torch.Tensor  # [M] int64
    requests: torch.Tensor  # [M] int64
    last_bytes: torch.Tensor  # [M, n, _KEPT] int16
    past_marker: torch.Tensor  # [M, n] bool

    def rows(self, size: int) -> torch.Tensor:
        """[B * n] bool: whether the row of each token follows a marker. `size`: B."""
        return _rows(size, self.requests, self.past_marker)


class WrittenTexts:
    """The ends of the texts that requests have written, by their slots.

    Args:
        tokens: the bytes of each id that the tokenizer knows; no other is ever sampled.
        slots: how many there are.
        device: of the models.
    """

    def __init__(self, tokens: Sequence[bytes], slots: int, device: str | torch.device):
        self._tokens, self._device = tokens, device
        sizes = torch.tensor([len(token) for token in tokens])
        self._sizes, self._starts = sizes.to(device), (sizes.cumsum(0) - sizes).to(device)
        self._bytes = torch.frombuffer(bytearray(b"".join(tokens)), dtype=torch.uint8).to(device, torch.int16)
        self._offsets = torch.arange(int(sizes.max()), device=device)
        self._kept = torch.arange(_KEPT, device=device)
        self._last_bytes = torch.full((slots, _KEPT), _NO_BYTE, dtype=torch.int16, device=device)
        self._past_marker = torch.zeros(slots, dtype=torch.bool, device=device)

    def read(self, marked: MarkedRequests, batch: Any) -> torch.Tensor:
        """Add what a step reads of each request, of which it says one token; once for each step, before it runs.

        Args:
            marked: of its requests.
            batch: the `ScheduleBatch` of B requests, with its `input_ids` on the device.

        Returns:
            [B] bool: whether what each has written holds its marker.
        """
        slots = batch.req_pool_indices[marked.on_device]
        if batch.forward_mode.is_decode():
            self._add(slots, marked.markers, batch.input_ids[marked.on_device])
        else:
            self._read_prompts(marked, batch, slots)
        return _rows(len(batch.reqs), marked.on_device, self._past_marker[slots, None])

    def along(self, marked: MarkedRequests, slots: torch.Tensor, chains: torch.Tensor) -> MarkedChains:
        """What they will have written at each token of a chain. Nothing is kept of it before `accept`.

        Args:
            marked: of B requests.
            slots: [B] int64.
            chains: [B, n] int64, each request's last token and its drafts.
        """
        slots = slots[marked.on_device]
        last, past = self._last_bytes[slots], self._past_marker[slots]
        ends, pasts = [], []
        for tokens in chains[marked.on_device].unbind(1):
            last, past = self._appended(last, past, marked.markers, tokens)
            ends.append(last)
            pasts.append(past)
        return MarkedChains(slots, marked.on_device, torch.stack(ends, 1), torch.stack(pasts, 1))

    def accept(self, chains: MarkedChains, lengths: torch.Tensor) -> None:
        """Keep what counts of a chain. `lengths`: [B] int64, how many of its tokens, at least one."""
        each = torch.arange(len(chains.slots), device=self._device)
        last = lengths[chains.requests] - 1
        self._last_bytes[chains.slots] = chains.last_bytes[each, last]
        self._past_marker[chains.slots] = chains.past_marker[each, last]

    def _read_prompts(self, marked: MarkedRequests, batch: Any, slots: torch.Tensor) -> None:
        """Of a step with prompts in it, where a request begins, goes on, or begins again after it was retracted.

        A slot had another request before. So the text is set, from the tokens that the host knows, and not added to.
        Those that decode in the same step, and whose last token the host may not know yet, have theirs.
        """
        begun: dict[int, bytes] = {}
        decoded: dict[int, int] = {}
        ends = list(accumulate(batch.extend_lens))
        for place, request in enumerate(marked.places):
            req = batch.reqs[request]
            generated = max(0, int(batch.seq_lens_cpu[request]) - len(req.origin_input_ids))
            if generated > len(req.output_ids):
                decoded[place] = ends[request] - 1
            else:
                begun[place] = b"".join(self._tokens[token] for token in req.output_ids[:generated])
        if begun:
            own = slots[to_device(list(begun), torch.int64, self._device)]
            self._last_bytes[own] = to_device(_ends_of(list(begun.values()), _KEPT), torch.int16, self._device)
            past = [marked.texts[place] in text for place, text in begun.items()]
            self._past_marker[own] = to_device(past, torch.bool, self._device)
        if decoded:
            places = to_device(list(decoded), torch.int64, self._device)
            tokens = batch.input_ids[to_device(list(decoded.values()), torch.int64, self._device)]
            self._add(slots[places], marked.markers[places], tokens)

    def _add(self, slots: torch.Tensor, markers: torch.Tensor, tokens: torch.Tensor) -> None:
        last, past = self._appended(self._last_bytes[slots], self._past_marker[slots], markers, tokens)
        self._last_bytes[slots], self._past_marker[slots] = last, past

    def _appended(
        self, last: torch.Tensor, past: torch.Tensor, markers: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """M texts and whether their markers are in them, with a token more each.

        Args:
            last: [M, _KEPT] int16, their last bytes.
            past: [M] bool.
            markers: [M, W] int16, as in `MarkedRequests`.
            tokens: [M] integers.
        """
        sizes = self._sizes[tokens][:, None]
        places = (self._starts[tokens][:, None] + self._offsets).clamp(max=len(self._bytes) - 1)
        added = torch.where(self._offsets < sizes, self._bytes[places], _NO_BYTE)
        text = torch.cat([last, added], dim=1)
        width = markers.shape[1]
        # [M, bytes of the longest token, W]: what stands before and at each new byte
        windows = text[:, _KEPT + 1 - width :].unfold(1, width, 1)
        markers = markers[:, None]
        is_end = ((windows == markers) | (markers == _NO_BYTE)).all(dim=2)
        return text.gather(1, sizes + self._kept), past | is_end.any(dim=1)


def _ends_of(texts: Sequence[bytes], size: int) -> list[list[int]]:
    """The last bytes of each text, as many for each; those of a shorter one stand at the end."""
    return [[*[_NO_BYTE] * (size - len(text)), *text[-size:]] for text in texts]


def _rows(size: int, requests: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """[B * n] bool from [M, n] of M of B requests; False for the others."""
    return values.new_zeros(size, values.shape[1]).index_copy(0, requests, values).flatten()
