"""Penalties and `min_new_tokens` at each position of a chain, from every token before it, worked out on the device.

SGLang's own count one token a step, whatever a verify accepts. Here a row for each penalized request counts how often
it has written each token. It is set when the prompt is read, and each cycle adds what it accepts. Nobody waits for
tokens: where the scheduler runs ahead, the host doesn't know them yet.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch

from sgl_proxythinker.step.row_memory import FIRST_COUNTED, PENALIZED_AT_ONCE
from sgl_proxythinker.step.rows import to_device

_NOBODYS = 0  # the row of requests that need none; what it counts weighs nothing

# [N, width] float32 each: what is added to logits, and what then scales them, as SGLang's sampler takes both; None of
# what no request has.
Penalties = tuple[torch.Tensor | None, torch.Tensor | None]


class _Asked(NamedTuple):
    """What B requests ask for, on the device but for the flags."""

    reqs: Sequence[Any]
    rows: torch.Tensor  # [B] int64
    frequency: torch.Tensor  # [B] float32
    presence: torch.Tensor  # [B] float32
    repetition: torch.Tensor  # [B] float32
    least: torch.Tensor  # [B] int64: `min_new_tokens`
    prompts: torch.Tensor  # [B] int64: tokens of the prompt
    ends: torch.Tensor  # [B, E] int64: the ids that SGLang ends a request at, some of them more than once
    subtracts: bool
    scales: bool

    def of(self, part: slice) -> _Asked:
        """Of some of the requests; the flags stay those of all."""
        return self._replace(
            reqs=self.reqs[part], rows=self.rows[part], frequency=self.frequency[part], presence=self.presence[part],
            repetition=self.repetition[part], least=self.least[part], prompts=self.prompts[part], ends=self.ends[part],
        )  # fmt: skip


class WrittenCounts:
    """How often each penalized request has written each token.

    What it holds, and what penalties take for a moment, is in the plan: `step.row_memory`.

    Args:
        width: columns of the logits.
        device: of the models.
        rows_at_once: of which penalties are there at the same time.
    """

    def __init__(self, width: int, device: str | torch.device, rows_at_once: int = PENALIZED_AT_ONCE):
        self._device = device
        self._rows_at_once = rows_at_once
        self._counts = torch.zeros(1, width, dtype=torch.int32, device=device)
        self._row_of: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._free: list[int] = []
        self._asked: _Asked | None = None

    def begin(self, reqs: Sequence[Any], read: Sequence[int]) -> Penalties:
        """Of prompts that are read: those of the token after each.

        A request that was retracted goes on from what it had written, which its prompt holds now.

        Args:
            reqs: SGLang's `Req` of each of B requests, whose `output_ids` hold what is read of them.
            read: tokens of each that are read by then.
        """
        if not any(map(_is_penalized, reqs)):
            return None, None
        written = [
            req.output_ids[: max(0, length - len(req.origin_input_ids))] for req, length in zip(reqs, read, strict=True)
        ]
        for req in filter(_is_counted, reqs):
            if req not in self._row_of:
                self._row_of[req] = self._free_row()
        asked = self._of(reqs)
        self._counts[asked.rows] = 0
        pairs = [(self._row(req), token) for req, tokens in zip(reqs, written, strict=True) for token in tokens]
        if pairs:
            rows, tokens = to_device(pairs, torch.int64, self._device).T
            self._add(rows, tokens, torch.ones_like(tokens, dtype=torch.int32))
        elif not _is_held_back(reqs):
            return None, None
        lengths = to_device([len(tokens) for tokens in written], torch.int64, self._device)
        none, held_back = lengths.new_empty(len(reqs), 0), _is_held_back(reqs)
        additive = self._additive(asked, held_back, lengths, none) if asked.subtracts or held_back else None
        return additive, self._scaling(asked, none) if asked.scales else None

    def along(self, reqs: Sequence[Any], chains: torch.Tensor, read: torch.Tensor) -> Iterator[tuple[slice, Penalties]]:
        """Of the token after each of a chain, a part of the rows at a time: of all at once they would take gigabytes.

        Each is made when it is asked for; let go of it before the next one. Nothing is kept of the chain before
        `accept`.

        Args:
            reqs: SGLang's `Req` of each of B requests; their `output_ids` may lack what the host doesn't know yet.
            chains: [B, n] int64, each request's last token and its drafts.
            read: [B] int64, tokens of each request before these.

        Yields:
            Which of the B * n rows, and theirs: what is added, and after it, of the same rows, what scales them.
        """
        if not any(map(_is_penalized, reqs)):
            return
        asked, held_back, each = self._of(reqs), _is_held_back(reqs), chains.shape[1]
        lengths = read - asked.prompts + 1
        at_once = max(1, self._rows_at_once // each)
        for begin in range(0, len(reqs), at_once):
            part, rows = slice(begin, begin + at_once), slice(begin * each, (begin + at_once) * each)
            of_part = asked.of(part)
            if asked.subtracts or held_back:
                yield rows, (self._additive(of_part, held_back, lengths[part], chains[part]), None)
            if asked.scales:
                yield rows, (None, self._scaling(of_part, chains[part]))

    def accept(self, reqs: Sequence[Any], chains: torch.Tensor, lengths: torch.Tensor) -> None:
        """Keep what counts of the chains of `along`. `lengths`: [B] int64, how many of their tokens."""
        if not any(map(_is_counted, reqs)):
            return
        counts = torch.arange(chains.shape[1], device=chains.device) < lengths[:, None]
        self._add(self._of(reqs).rows[:, None].expand_as(chains), chains, counts.int())

    def _additive(self, asked: _Asked, held_back: bool, lengths: torch.Tensor, chains: torch.Tensor) -> torch.Tensor:
        """[B * n, width] float32 after each token of a chain; [B, width] before any of an empty one.

        Args:
            held_back: whether one may be short of its `min_new_tokens`.
            lengths: [B] int64, tokens that each request has written before the first that is drawn.
            chains: [B, n] int64, written after those that are counted; n may be 0.
        """
        counts, each = self._counts[asked.rows], max(1, chains.shape[1])
        additive = torch.zeros(len(counts), each, counts.shape[1], device=counts.device)
        if asked.subtracts:
            additive.copy_(counts[:, None])
            for positions, ids in _later(chains):
                additive[:, positions].scatter_add_(2, ids, torch.ones_like(ids, dtype=torch.float32))
            are_written = additive > 0
            additive.mul_(-asked.frequency[:, None, None])
            additive.addcmul_(are_written, asked.presence[:, None, None], value=-1)
        if held_back:
            written = lengths[:, None] + torch.arange(each, device=lengths.device)
            ends = asked.ends[:, None].expand(-1, each, -1)
            is_early = (written < asked.least[:, None])[..., None]
            additive.scatter_(2, ends, torch.where(is_early, -torch.inf, additive.gather(2, ends)))
        return additive.flatten(0, 1)

    def _scaling(self, asked: _Asked, chains: torch.Tensor) -> torch.Tensor:
        """As `_additive`."""
        are_written, each = self._counts[asked.rows] > 0, max(1, chains.shape[1])
        repetition = asked.repetition[:, None, None]
        scaling = torch.empty(len(are_written), each, are_written.shape[1], device=are_written.device)
        # Not made for one position and repeated: both would be there at once.
        torch.where(are_written[:, None].expand_as(scaling), repetition, repetition.new_ones(()), out=scaling)
        for positions, ids in _later(chains):
            scaling[:, positions].scatter_(2, ids, repetition.expand_as(ids))
        return scaling.flatten(0, 1)

    def _add(self, rows: torch.Tensor, tokens: torch.Tensor, counts: torch.Tensor) -> None:
        places = rows * self._counts.shape[1] + tokens
        self._counts.view(-1).scatter_add_(0, places.flatten(), counts.flatten())

    def _of(self, reqs: Sequence[Any]) -> _Asked:
        asked = self._asked
        if asked is None or len(asked.reqs) != len(reqs) or not all(map(operator.is_, asked.reqs, reqs)):
            params = [req.sampling_params for req in reqs]

            def on_device(values: Sequence[Any], dtype: torch.dtype = torch.float32) -> torch.Tensor:
                return to_device(values, dtype, self._device)

            self._asked = asked = _Asked(
                list(reqs),
                on_device([self._row(req) for req in reqs], torch.int64),
                on_device([one.frequency_penalty for one in params]),
                on_device([one.presence_penalty for one in params]),
                on_device([one.repetition_penalty for one in params]),
                on_device([req.sampling_params.min_new_tokens if _ends(req) else 0 for req in reqs], torch.int64),
                on_device([len(req.origin_input_ids) for req in reqs], torch.int64),
                on_device(_of_one_length([sorted(_ends(req)) for req in reqs]), torch.int64),
                subtracts=any(one.frequency_penalty or one.presence_penalty for one in params),
                scales=any(one.repetition_penalty != 1.0 for one in params),
            )
        return asked

    def _row(self, req: Any) -> int:
        return self._row_of[req] if _is_counted(req) else _NOBODYS

    def _free_row(self) -> int:
        """A row of no request that may still run. What a step that is under way adds to it comes before it is set."""
        if not self._free:
            taken = {row for req, row in self._row_of.items() if not req.finished()}
            self._free = [row for row in range(_NOBODYS + 1, len(self._counts)) if row not in taken]
        if not self._free:
            before = len(self._counts)
            more = self._counts.new_zeros(max(FIRST_COUNTED, before), self._counts.shape[1])
            self._counts = torch.cat([self._counts, more])
            self._free = list(range(before, len(self._counts)))
        return self._free.pop()


def _is_counted(req: Any) -> bool:
    """Whether the tokens that a request has written change its next one."""
    params = req.sampling_params
    return bool(params.frequency_penalty or params.presence_penalty or params.repetition_penalty != 1.0)


def _is_penalized(req: Any) -> bool:
    return _is_counted(req) or _is_held_back([req])


def _is_held_back(reqs: Sequence[Any]) -> bool:
    """Whether one may be short of its `min_new_tokens`: the host may know fewer of its tokens than there are."""
    return any(req.sampling_params.min_new_tokens > len(req.output_ids) for req in reqs)


def _later(chains: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Of each token of a chain the positions that are drawn after it, and its id there, [B, so many, 1]."""
    each = chains.shape[1]
    for at in range(each):
        yield slice(at, None), chains[:, at, None, None].expand(-1, each - at, 1)


def _of_one_length(lists: Sequence[Sequence[int]]) -> list[list[int]]:
    """Those that are shorter with their first again."""
    longest = max(1, *map(len, lists))
    return [[*ids, *[ids[0] if ids else 0] * (longest - len(ids))] for ids in lists]


def _ends(req: Any) -> set[int]:
    """The ids that SGLang ends a request at."""
    tokenizer = req.tokenizer
    ends = (req.sampling_params.stop_token_ids or set()) | (tokenizer.additional_stop_token_ids or set())
    return ends | ({tokenizer.eos_token_id} - {None})
