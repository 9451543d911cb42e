"""Whether what a request has generated holds the marker of its law: asked of every token, on the device.

A marker is a text, and tokens are pieces of one: it may begin and end in the middle of a token. So bytes are compared.
Of each slot of SGLang's `req_to_token_pool` the last bytes that its request has written are kept, as many as stand in a
marker before its end, and whether the marker was among them. Each step adds the tokens that it reads. Nobody waits for
them: where the scheduler runs ahead, the host doesn't know them yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from sgl_proxythinker.step.marked_texts import KEPT, NO_BYTE, KnownTexts, MarkedChains, MarkedRequests, ends_of
from sgl_proxythinker.step.rows import to_device


class WrittenTexts:
    """The ends of the texts that requests have written, by their slots.

    On CUDA a step's tokens are read by a kernel, whose specification is `read_in_torch` and `along_in_torch`.

    Args:
        tokens: the bytes of each id that the tokenizer knows; no other is ever sampled.
        slots: how many there are.
        device: of the models.
    """

    def __init__(self, tokens: Sequence[bytes], slots: int, device: str | torch.device):
        self._tokens, self._device = tokens, device
        sizes = torch.tensor([len(token) for token in tokens])
        self._texts = KnownTexts(
            sizes.to(device),
            (sizes.cumsum(0) - sizes).to(device),
            torch.frombuffer(bytearray(b"".join(tokens)), dtype=torch.uint8).to(device, torch.int16),
            int(sizes.max()),
            torch.full((slots, KEPT), NO_BYTE, dtype=torch.int16, device=device),
            torch.zeros(slots, dtype=torch.bool, device=device),
        )
        self._read, self._along = read_in_torch, along_in_torch
        if self._texts.last_bytes.is_cuda:
            # Not before it is needed: a machine without a GPU may lack triton.
            from sgl_proxythinker.step.markers_kernel import along_by_kernel, read_by_kernel

            self._read, self._along = read_by_kernel, along_by_kernel

    def read(self, marked: MarkedRequests, batch: Any) -> torch.Tensor:
        """Add what a step reads of each request, of which it says one token; once for each step, before it runs.

        Args:
            marked: of its requests.
            batch: the `ScheduleBatch` of B requests, with its `input_ids` on the device.

        Returns:
            [B] bool: whether what each has written holds its marker.
        """
        slots = batch.req_pool_indices
        if batch.forward_mode.is_decode():
            return self._read(self._texts, marked, slots, batch.input_ids)
        self._read_prompts(marked, batch, slots[marked.on_device])
        past = self._texts.past_marker
        return past.new_zeros(len(slots)).index_copy(0, marked.on_device, past[slots[marked.on_device]])

    def along(self, marked: MarkedRequests, slots: torch.Tensor, chains: torch.Tensor) -> MarkedChains:
        """What they will have written at each token of a chain. Nothing is kept of it before `accept`.

        Args:
            marked: of B requests.
            slots: [B] int64.
            chains: [B, n] int64, each request's last token and its drafts.
        """
        return self._along(self._texts, marked, slots, chains)

    def accept(self, chains: MarkedChains, lengths: torch.Tensor) -> None:
        """Keep what counts of a chain. `lengths`: [B] int64, how many of its tokens, at least one."""
        _keep(self._texts, chains, lengths)

    def rehearse(self, marked: MarkedRequests) -> torch.Tensor:
        """What `read` gives of a step of one request, in a slot that none has yet; chains are read too."""
        slot = token = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._along(self._texts, marked, slot, token[:, None])
        return self._read(self._texts, marked, slot, token)

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
            self._texts.last_bytes[own] = to_device(ends_of(list(begun.values()), KEPT), torch.int16, self._device)
            past = [marked.texts[place] in text for place, text in begun.items()]
            self._texts.past_marker[own] = to_device(past, torch.bool, self._device)
        if decoded:
            places = to_device(list(decoded), torch.int64, self._device)
            tokens = batch.input_ids[to_device(list(decoded.values()), torch.int64, self._device)]
            texts, own = self._texts, slots[places]
            markers = marked.markers[marked.on_device[places]]
            texts.last_bytes[own], texts.past_marker[own] = _appended(
                texts, texts.last_bytes[own], texts.past_marker[own], markers, tokens
            )


def read_in_torch(texts: KnownTexts, marked: MarkedRequests, slots: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """What `WrittenTexts.read` means of a step in which B requests read a token each.

    Args:
        texts: of whose slots those of the requests with a marker are overwritten; no slot is in a batch twice.
        marked: of the requests.
        slots, tokens: [B] integers.

    Returns:
        [B] bool: whether what each has written holds its marker.
    """
    chains = along_in_torch(texts, marked, slots, tokens[:, None])
    _keep(texts, chains, torch.ones_like(slots))
    return chains.past_marker[:, 0]


def along_in_torch(
    texts: KnownTexts, marked: MarkedRequests, slots: torch.Tensor, chains: torch.Tensor
) -> MarkedChains:
    """What `WrittenTexts.along` means, on any device. `texts` are read only."""
    requests = marked.on_device
    own, markers = slots[requests], marked.markers[requests]
    last, past = texts.last_bytes[own], texts.past_marker[own]
    last_bytes = last.new_empty(*chains.shape, KEPT)
    past_marker = past.new_zeros(chains.shape)
    for place, tokens in enumerate(chains[requests].unbind(1)):
        last, past = _appended(texts, last, past, markers, tokens)
        last_bytes[requests, place], past_marker[requests, place] = last, past
    return MarkedChains(slots, requests, last_bytes, past_marker)


def _keep(texts: KnownTexts, chains: MarkedChains, lengths: torch.Tensor) -> None:
    requests, last = chains.requests, lengths[chains.requests] - 1
    slots = chains.slots[requests]
    texts.last_bytes[slots] = chains.last_bytes[requests, last]
    texts.past_marker[slots] = chains.past_marker[requests, last]


def _appended(
    texts: KnownTexts, last: torch.Tensor, past: torch.Tensor, markers: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """M texts and whether their markers are in them, with a token more each.

    Args:
        texts: for the bytes of tokens.
        last: [M, KEPT] int16, their last bytes.
        past: [M] bool.
        markers: [M, W] int16, as in `MarkedRequests`.
        tokens: [M] integers.
    """
    sizes, offsets = texts.sizes[tokens][:, None], torch.arange(texts.longest, device=last.device)
    places = (texts.starts[tokens][:, None] + offsets).clamp(max=len(texts.bytes) - 1)
    added = torch.where(offsets < sizes, texts.bytes[places], NO_BYTE)
    text = torch.cat([last, added], dim=1)
    width = markers.shape[1]
    # [M, bytes of the longest token, W]: what stands before and at each new byte
    windows = text[:, KEPT + 1 - width :].unfold(1, width, 1)
    markers = markers[:, None]
    is_end = ((windows == markers) | (markers == NO_BYTE)).all(dim=2)
    return text.gather(1, sizes + torch.arange(KEPT, device=last.device)), past | is_end.any(dim=1)
