"""Logsumexp, entropy and most likely id of each row of a step's logits; how far two models differ in it."""

from __future__ import annotations

import math

import torch

from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.step.row_statistics import PairStatistics, RowStatistics

# Rows are read in parts: each part has float32 temporaries of [rows, vocabulary], 10 MB each with 152,064 ids, so that
# what a step needs for it doesn't grow with the number of its rows.
ROWS_AT_ONCE = 16


def row_statistics(logits: ShardedLogits, rows: torch.Tensor, vocab_size: int) -> RowStatistics:
    """Logsumexp, entropy and most likely id of some rows of a model's logits.

    Args:
        logits: read only.
        rows: [R] int64, of `logits`.
        vocab_size: ids that the tokenizer knows; columns past them don't count.

    It does not wait for the device. On CUDA it runs a kernel, whose specification is `row_statistics_in_torch`.
    """
    if logits.shards.is_cuda:
        # Not before it is needed: a machine without a GPU may lack triton.
        from sgl_proxythinker.step.statistics_kernel import row_statistics_by_kernel

        return row_statistics_by_kernel(logits, rows, vocab_size)
    return row_statistics_in_torch(logits, rows, vocab_size)


def row_statistics_of_pair(
    one: ShardedLogits, one_rows: torch.Tensor, other: ShardedLogits, other_rows: torch.Tensor, vocab_size: int
) -> PairStatistics:
    """`row_statistics` of two models, and the Jensen-Shannon divergence of their distributions.

    Args:
        one, other: raw logits. Read only.
        one_rows, other_rows: [R] int64, the rows of each that belong together.
        vocab_size: ids that the tokenizer knows.

    It does not wait for the device. On CUDA it runs a kernel, whose specification is `pair_statistics_in_torch`.
    """
    if one.shards.is_cuda:
        from sgl_proxythinker.step.statistics_kernel import pair_statistics_by_kernel

        return pair_statistics_by_kernel(one, one_rows, other, other_rows, vocab_size)
    return pair_statistics_in_torch(one, one_rows, other, other_rows, vocab_size)


def row_statistics_in_torch(logits: ShardedLogits, rows: torch.Tensor, vocab_size: int) -> RowStatistics:
    """What `row_statistics` means, on any device."""
    parts = [_statistics(logits.rows(part, vocab_size).float()) for part in rows.split(ROWS_AT_ONCE)]
    return RowStatistics(*(torch.cat(column) for column in zip(*parts, strict=True)))


def pair_statistics_in_torch(
    one: ShardedLogits, one_rows: torch.Tensor, other: ShardedLogits, other_rows: torch.Tensor, vocab_size: int
) -> PairStatistics:
    """What `row_statistics_of_pair` means, on any device."""
    parts = zip(one_rows.split(ROWS_AT_ONCE), other_rows.split(ROWS_AT_ONCE), strict=True)
    divergence = [_jensen_shannon(one.rows(part, vocab_size), other.rows(same, vocab_size)) for part, same in parts]
    return PairStatistics(
        row_statistics_in_torch(one, one_rows, vocab_size),
        row_statistics_in_torch(other, other_rows, vocab_size),
        torch.cat(divergence),
    )


def at_tokens(logits: ShardedLogits, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """[R] float32: the raw logit of one id in each row.

    Args:
        logits: read only.
        rows: [R] int64, of `logits`.
        tokens: [R] int64, an id for each.
    """
    width = logits.shards.shape[-1]
    return logits.shards[tokens // width, rows, tokens % width].float()


def _statistics(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    largest, top1 = rows.max(-1)
    logprobs = rows.log_softmax(-1)
    # The largest id's log probability is small, and so exact where both logits are not.
    logsumexp = largest.double() - logprobs.gather(1, top1[:, None])[:, 0].double()
    return logsumexp, torch.special.entr(logprobs.exp()).sum(-1), top1


def _jensen_shannon(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    one, other = one.float().log_softmax(-1), other.float().log_softmax(-1)
    middle = torch.logaddexp(one, other) - math.log(2)
    # Of nearly equal distributions rounding makes it a hair negative.
    return ((_terms(one, middle) + _terms(other, middle)).sum(-1) / 2).clamp(min=0.0)


def _terms(logprobs: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
    """p * log(p / middle); 0 where p is, not 0 * -inf."""
    mass = logprobs.exp()
    return torch.where(mass == 0, 0.0, mass * (logprobs - middle))
