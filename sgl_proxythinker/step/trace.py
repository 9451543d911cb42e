"""Evidence of what guidance did to each token, for the requests that ask: `meta_info["proxy_trace"]`.

Its way: rows are summed up in the forward (`attach_evidence`); the token is known once it is sampled, before the next
forward overwrites the logits, and is looked up in them (`trace_tokens`); the values reach the host with the step's
other results (`publish_trace`), go with the token to the main process in SGLang's `customized_info`, and become one
object of lists there (`trace_format`). Nothing in the step waits for the device, none of it keeps a copy of a row, and
a step in which no row asks does none of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from sgl_proxythinker.guidance import TRACE
from sgl_proxythinker.roles import BASE, Role
from sgl_proxythinker.step.fusion import fuse_in_torch
from sgl_proxythinker.step.host_copy import HostCopy
from sgl_proxythinker.step.logits import ShardedLogits, WeightedPair
from sgl_proxythinker.step.rows import SelectedRequests, to_device
from sgl_proxythinker.step.statistics import at_tokens, row_statistics, row_statistics_of_pair

_ATTRIBUTE = "proxy_trace"


class TracedRows(NamedTuple):
    """The rows of a batch whose requests ask for a trace of the same pair, R of N, on the device."""

    pair: tuple[Role, Role]  # an expert and its amateur
    # [R] int64: the rows of each told model's logits that are these; base, expert, amateur: `trace_format.FIELDS`.
    rows: Mapping[Role, torch.Tensor]

    @classmethod
    def of(
        cls, pair: tuple[Role, Role], rows: Sequence[int], runs: Mapping[Role, SelectedRequests], device: str
    ) -> TracedRows:
        """From rows of the base, for which the pair runs."""
        made = {BASE: list(rows)} | {role: [runs[role].rows[row] for row in rows] for role in pair}
        return cls(pair, {role: to_device(own, torch.int64, device) for role, own in made.items()})


class Evidence(NamedTuple):
    """What is known of the rows that ask for one pair, R of N, before their tokens are sampled."""

    traced: TracedRows
    pairs: Mapping[tuple[Role, Role], WeightedPair]  # what steers the N rows
    told: Mapping[Role, ShardedLogits]  # there until the step's tokens are sampled: the next forward overwrites them
    logsumexp: torch.Tensor  # [4, R] float64: base, expert, amateur, fused
    base_top1: torch.Tensor  # [R] int64
    js_nats: torch.Tensor  # [R] float32, of expert and amateur
    base_entropy: torch.Tensor  # [R] float32, nats
    untuned_js_nats: torch.Tensor  # [R] float32, of base and amateur

    def of_tokens(self, next_token_ids: torch.Tensor) -> torch.Tensor:
        """[R, 11] float64, exact for ids: the row, then `FIELDS` without `flipped`. `next_token_ids`: [N] integers."""
        rows = self.traced.rows[BASE]
        tokens = next_token_ids[rows].long()
        raw = [at_tokens(logits, self.traced.rows[role], tokens) for role, logits in self.told.items()]
        # The fused row is the sampler's by now; of one column the formula gives the same number again.
        pairs = {models: _at_tokens(pair, rows, tokens) for models, pair in self.pairs.items()}
        base = ShardedLogits.whole(raw[0][:, None])
        fused = fuse_in_torch(base, list(pairs.values()), len(tokens), vocab_size=1, width=1).logits[:, 0]
        logprobs = torch.stack([*raw, fused]) - self.logsumexp
        own = pairs.get(self.traced.pair)
        strength = torch.zeros_like(self.js_nats) if own is None else own.weights[0]
        of_rows = (self.base_top1, self.js_nats, strength, self.base_entropy, self.untuned_js_nats)
        columns = (rows, tokens, *logprobs, *of_rows)
        return torch.stack([column.double() for column in columns], dim=1)


class _OnItsWay(NamedTuple):
    """The evidence of a step's tokens, on its way to the host."""

    owner: Sequence[int]
    values: HostCopy  # of `Evidence.of_tokens`


def _at_tokens(pair: WeightedPair, rows: torch.Tensor, tokens: torch.Tensor) -> WeightedPair:
    """The pair in R rows, of one id each: its logits are [R, 1]."""

    def column(logits: ShardedLogits, own: torch.Tensor | None) -> tuple[ShardedLogits, torch.Tensor]:
        own = rows if own is None else own[rows]
        # A model that did not run for a row has another row's number here, which is not added: its place stays -1.
        places = torch.where(own < 0, own, torch.arange(len(own), device=own.device))
        return ShardedLogits.whole(at_tokens(logits, own.clamp(min=0), tokens)[:, None]), places

    plus, plus_rows = column(pair.plus, pair.plus_rows)
    minus, minus_rows = column(pair.minus, pair.minus_rows)
    clips = None if pair.clips is None else pair.clips[rows]
    return WeightedPair(plus, minus, pair.weights[:, rows], plus_rows, minus_rows, clips)


def attach_evidence(
    logits_output: Any,
    logits: Mapping[Role, ShardedLogits],
    pairs: Mapping[tuple[Role, Role], WeightedPair],
    fused: torch.Tensor,
    traced: Sequence[TracedRows],
    owner: Sequence[int],
    vocab_size: int,
) -> None:
    """Sum up the rows that ask, before the sampler overwrites the fused ones.

    Args:
        logits_output: SGLang's `LogitsProcessorOutput` of this step; it carries the evidence to `trace_tokens`.
        logits: the raw logits of the models. Read only; they stay as they are until the tokens are sampled.
        pairs: what the N rows were steered by.
        fused: [N, >= vocab_size] float32, before penalties, masks and temperature. Read only.
        traced: the rows, of each pair that is asked for.
        owner: [N] the request of each row.
        vocab_size: ids that the tokenizer knows; columns past it don't count.
    """
    evidence = [_evidence(logits, pairs, fused, of_pair, vocab_size) for of_pair in traced]
    setattr(logits_output, _ATTRIBUTE, (owner, evidence))


def _evidence(
    logits: Mapping[Role, ShardedLogits],
    pairs: Mapping[tuple[Role, Role], WeightedPair],
    fused: torch.Tensor,
    traced: TracedRows,
    vocab_size: int,
) -> Evidence:
    told = {role: logits[role] for role in traced.rows}
    expert, amateur = traced.pair
    untuned, small = (
        row_statistics_of_pair(told[one], traced.rows[one], told[amateur], traced.rows[amateur], vocab_size)
        for one in (BASE, expert)
    )
    base = untuned.one
    of_fused = row_statistics(ShardedLogits.whole(fused), traced.rows[BASE], vocab_size)
    return Evidence(
        traced,
        pairs,
        told,
        torch.stack([base.logsumexp, small.one.logsumexp, small.other.logsumexp, of_fused.logsumexp]),
        base.top1,
        small.js_nats,
        base.entropy,
        untuned.js_nats,
    )


def trace_tokens(result: Any) -> None:
    """Start the way to the host of what is known of the step's tokens, as soon as they are sampled.

    Args:
        result: SGLang's `GenerationBatchResult` of a forward that attached evidence. Under overlap scheduling with a
            grammar its tokens are sampled later, by its `delay_sample_func`.
    """
    if result.delay_sample_func is None:
        _start(result)
    else:
        result.delay_sample_func = _then_start(result.delay_sample_func)


def _then_start(sample: Callable[[], Any]) -> Callable[[], Any]:
    def sample_and_start() -> Any:
        result = sample()
        _start(result)
        return result

    return sample_and_start


def _start(result: Any) -> None:
    # Replaces the evidence, so that the step's rows don't live until its result is processed.
    owner, evidence = getattr(result.logits_output, _ATTRIBUTE)
    values = HostCopy.start(torch.cat([of_pair.of_tokens(result.next_token_ids) for of_pair in evidence]))
    setattr(result.logits_output, _ATTRIBUTE, _OnItsWay(owner, values))


def publish_trace(batch: Any, result: Any) -> None:
    """Let SGLang take the step's evidence to the requests, token by token, with the ids.

    Args:
        batch: the `ScheduleBatch` of the step.
        result: the step's result; its `customized_info` gets a list with a tuple in the order of `FIELDS` for each
            request that asked, of its last row, and None for the others. Those of its other rows go to the request.
    """
    logits_output: Any = getattr(result, "logits_output", None)
    on_its_way: _OnItsWay | None = getattr(logits_output, _ATTRIBUTE, None)
    if on_its_way is None:
        return
    entries: list[tuple | None] = [None] * len(batch.reqs)
    is_given = _is_given(batch.reqs, result, on_its_way.owner)
    for row, token, base, expert, amateur, fused, top1, js_nats, alpha, *of_base in on_its_way.values.read():
        request = on_its_way.owner[int(row)]
        if not is_given[int(row)]:
            continue
        if (earlier := entries[request]) is not None:
            _give(batch.reqs[request], earlier)
        logprobs = map(_json_number, (base, expert, amateur, fused))
        said = (int(top1), token != top1, _json_number(js_nats), _json_number(round(alpha, 6)))
        entries[request] = (int(token), *logprobs, *said, *map(_json_number, of_base))
    logits_output.customized_info = {**(logits_output.customized_info or {}), TRACE: entries}


def _is_given(reqs: Sequence[Any], result: Any, owner: Sequence[int]) -> list[bool]:
    """Whether the request of each row gets its token: of a chain those up to the last that was accepted, else all.

    With overlap a request may have ended, or have been retracted, while the step ran: SGLang gives it none then.
    """
    if result.accept_lens is None:
        return [True] * len(owner)
    if result.copy_done is not None:
        result.copy_done.synchronize()
    lengths = [
        0 if req.finished() or req.is_retracted else length
        for req, length in zip(reqs, result.accept_lens.tolist(), strict=True)
    ]
    first: dict[int, int] = {}
    return [row - first.setdefault(request, row) < lengths[request] for row, request in enumerate(owner)]


def _give(req: Any, entry: tuple) -> None:
    """As SGLang gives a request the one element of a step: it takes one for each."""
    if req.customized_info is None:
        req.customized_info = {}
    req.customized_info.setdefault(TRACE, []).append(entry)


def _json_number(value: float) -> float | None:
    """JSON has no NaN: a damaged proxy's logprob, beside a base that answers alone, is null."""
    return value if math.isfinite(value) else None
