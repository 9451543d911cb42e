"""Evidence of what guidance did to each token, for the requests that ask: `meta_info["proxy_trace"]`.

Its way: rows are summed up in the forward (`attach_evidence`); the token is known once it is sampled, before the next
forward overwrites the logits, and is looked up in them (`trace_tokens`); the values reach the host with the step's
other results (`publish_trace`), go with the token to the main process in SGLang's `customized_info`, and become one
object of lists there (`trace_format`). Nothing in the step waits for the device, none of it keeps a copy of a row, and
a step in which no row asks does none of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from sgl_proxythinker.guidance import TRACE
from sgl_proxythinker.roles import Role
from sgl_proxythinker.step.fusion import fuse_in_torch
from sgl_proxythinker.step.host_copy import HostCopy
from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.step.statistics import at_tokens, jensen_shannon, row_statistics

_ATTRIBUTE = "proxy_trace"


class TracedRows(NamedTuple):
    """The rows of a batch whose requests ask, R of them, on the device."""

    rows: torch.Tensor  # [R] int64
    places: torch.Tensor  # [R] int64: the same requests among the rows that the small models ran for

    def of(self, role: Role) -> torch.Tensor:
        """[R] int64: the rows of a model's logits that are these requests'."""
        return self.rows if role is Role.BASE else self.places


class Evidence(NamedTuple):
    """What is known of the rows that ask, R of a batch, before their tokens are sampled."""

    traced: TracedRows
    logits: Mapping[Role, ShardedLogits]  # of the step, until its tokens are sampled: the next forward overwrites them
    weights: torch.Tensor  # [2, R] float32: the expert's and the amateur's
    logsumexp: torch.Tensor  # [4, R] float64: base, expert, amateur, fused
    base_top1: torch.Tensor  # [R] int64
    js_nats: torch.Tensor  # [R] float32

    def of_tokens(self, next_token_ids: torch.Tensor) -> torch.Tensor:
        """[R, 8] float64, exact for ids: the row, then `FIELDS` without `flipped`. `next_token_ids`: [B] integers."""
        tokens = next_token_ids[self.traced.rows].long()
        raw = [at_tokens(logits, self.traced.of(role), tokens) for role, logits in self.logits.items()]
        # The fused row is the sampler's by now; of one column the formula gives the same number again.
        base, expert, amateur = (ShardedLogits.whole(column[:, None]) for column in raw)
        of_expert, of_amateur = self.weights
        fused = fuse_in_torch(base, expert, amateur, of_expert, of_amateur, None, vocab_size=1, width=1).logits[:, 0]
        logprobs = torch.stack([*raw, fused]) - self.logsumexp
        columns = (self.traced.rows, tokens, *logprobs, self.base_top1, self.js_nats)
        return torch.stack([column.double() for column in columns], dim=1)


def attach_evidence(
    logits_output: Any,
    logits: Mapping[Role, ShardedLogits],
    fused: torch.Tensor,
    weights: torch.Tensor,
    traced: TracedRows,
    vocab_size: int,
) -> None:
    """Sum up the rows that ask, before the sampler overwrites the fused ones.

    Args:
        logits_output: SGLang's `LogitsProcessorOutput` of this step; it carries the evidence to `trace_tokens`.
        logits: the raw logits of the three models. Read only; they stay as they are until the tokens are sampled.
        fused: [B, >= vocab_size] float32, before penalties, masks and temperature. Read only.
        weights: [2, B] float32, the expert's and the amateur's.
        traced: the rows.
        vocab_size: ids that the tokenizer knows; columns past it don't count.
    """
    raw = {role: logits[role] for role in Role}
    base, *proxies = (row_statistics(raw[role], traced.of(role), vocab_size) for role in Role)
    sums = [base, *proxies, row_statistics(ShardedLogits.whole(fused), traced.rows, vocab_size)]
    evidence = Evidence(
        traced,
        raw,
        weights[:, traced.rows],
        torch.stack([of_model.logsumexp for of_model in sums]),
        base.top1,
        jensen_shannon(raw[Role.EXPERT], raw[Role.AMATEUR], traced.places, vocab_size),
    )
    setattr(logits_output, _ATTRIBUTE, evidence)


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
    evidence: Evidence = getattr(result.logits_output, _ATTRIBUTE)
    setattr(result.logits_output, _ATTRIBUTE, HostCopy.start(evidence.of_tokens(result.next_token_ids)))


def publish_trace(batch: Any, result: Any) -> None:
    """Let SGLang take the step's evidence to the requests, token by token, with the ids.

    Args:
        batch: the `ScheduleBatch` of the step, its requests in row order.
        result: the step's result; its `customized_info` gets a list with a tuple in the order of `FIELDS` for each row
            that asked, and None for the others.
    """
    logits_output: Any = getattr(result, "logits_output", None)
    values: HostCopy | None = getattr(logits_output, _ATTRIBUTE, None)
    if values is None:
        return
    entries: list[tuple | None] = [None] * len(batch.reqs)
    for row, token, base, expert, amateur, fused, top1, js_nats in values.read():
        logprobs = map(_json_number, (base, expert, amateur, fused))
        entries[int(row)] = (int(token), *logprobs, int(top1), token != top1, _json_number(js_nats))
    logits_output.customized_info = {**(logits_output.customized_info or {}), TRACE: entries}


def _json_number(value: float) -> float | None:
    """JSON has no NaN: a damaged proxy's logprob, beside a base that answers alone, is null."""
    return value if math.isfinite(value) else None
