"""Evidence of what guidance did to each token, for the requests that ask: `meta_info["proxy_trace"]`.

Its way: rows are read in the forward, while their logits exist (`attach_evidence`); the token is known once it is
sampled (`trace_tokens`); the values reach the host with the step's other results (`publish_trace`), go with the token
to the main process in SGLang's `customized_info`, and become one object of lists there (`as_lists`). Nothing in the
step waits for the device, and a step in which no row asks does none of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from sgl_proxythinker.roles import Role
from sgl_proxythinker.step.host_copy import HostCopy
from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.strength import TRACE, asks_for_trace

_ATTRIBUTE = "proxy_trace"
_ROWS_AT_ONCE = 16  # of [rows, vocab] temporaries: 10 MB each with a vocabulary of 152,000


def rows_that_ask(custom_params: Sequence[Mapping[str, Any] | None]) -> list[int]:
    """The rows of a batch whose requests want a trace, from the `custom_params` of each row's request."""
    return [row for row, params in enumerate(custom_params) if asks_for_trace(params)]


class Evidence(NamedTuple):
    """What is known of the rows that ask, R of a batch, before their tokens are sampled."""

    rows: torch.Tensor  # [R] int64, which rows of the batch
    logprobs: torch.Tensor  # [4, R, K] float32: base, expert, amateur, fused, over the K ids that the tokenizer knows
    base_top1: torch.Tensor  # [R] int64
    js_nats: torch.Tensor  # [R] float32

    def of_tokens(self, next_token_ids: torch.Tensor) -> torch.Tensor:
        """[R, 7] float64, exact for ids: the row, then `FIELDS` without `flipped`. `next_token_ids`: [B] integers."""
        tokens = next_token_ids[self.rows].long()
        chosen = self.logprobs.gather(2, tokens.expand(4, -1)[..., None])[..., 0]
        columns = (self.rows, tokens, *chosen, self.base_top1, self.js_nats)
        return torch.stack([column.double() for column in columns], dim=1)


class TracedRows(NamedTuple):
    """The rows of a batch whose requests ask, R of them, on the device."""

    rows: torch.Tensor  # [R] int64
    places: torch.Tensor  # [R] int64: the same requests among the rows that the small models ran for


def attach_evidence(
    logits_output: Any, logits: Mapping[Role, ShardedLogits], fused: torch.Tensor, traced: TracedRows, vocab_size: int
) -> None:
    """Read the rows that ask, before a graph's next replay and the sampler overwrite them.

    Args:
        logits_output: SGLang's `LogitsProcessorOutput` of this step; it carries the evidence to `trace_tokens`.
        logits: the raw logits of the three models. Read only.
        fused: [B, >= vocab_size] float32, before penalties, masks and temperature. Read only.
        traced: the rows.
        vocab_size: ids that the tokenizer knows; columns past it don't count.
    """
    logprobs = torch.empty(4, len(traced.rows), vocab_size, dtype=torch.float32, device=fused.device)
    for of_model, role in zip(logprobs, Role, strict=False):
        index = traced.rows if role is Role.BASE else traced.places
        of_model.copy_(logits[role].rows(index, vocab_size).float().log_softmax(-1))
    logprobs[3].copy_(fused[traced.rows, :vocab_size].log_softmax(-1))
    base_logprobs, expert_logprobs, amateur_logprobs, _ = logprobs
    js_nats = jensen_shannon(expert_logprobs, amateur_logprobs)
    setattr(logits_output, _ATTRIBUTE, Evidence(traced.rows, logprobs, base_logprobs.argmax(-1), js_nats))


def jensen_shannon(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The Jensen-Shannon divergence of distributions given as log probabilities.

    Args:
        one, other: [R, K] float32. Read only.

    Returns:
        [R] float32 in nats, from 0 (equal) to log 2 (disjoint).
    """
    parts = zip(one.split(_ROWS_AT_ONCE), other.split(_ROWS_AT_ONCE), strict=True)
    return torch.cat([_jensen_shannon(p, q) for p, q in parts])


def _jensen_shannon(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    middle = torch.logaddexp(one, other) - math.log(2)
    divergences = [(logprobs.exp() * (logprobs - middle)).sum(-1) for logprobs in (one, other)]
    # Of nearly equal distributions rounding makes it a hair negative.
    return (sum(divergences) / 2).clamp(min=0.0)


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
    logits_output = getattr(result, "logits_output", None)
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
