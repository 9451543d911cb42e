"""A token for every position of every chain, by SGLang's own sampler.

Each is drawn from the fused row of its position as a server without speculation would draw it, given that the tokens
before it were accepted; so the tokens are the same whatever the drafts were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch

from sgl_proxythinker.speculation.chain_masks import chain_mask
from sgl_proxythinker.speculation.penalties import Penalties
from sgl_proxythinker.step.plausible import cut_implausible

# Of SGLang's `SamplingBatchInfo`: tensors with a value per request.
_BY_REQUEST = ("temperatures", "top_ps", "top_ks", "min_ps", "sampling_seed")


def sample_chains(
    sampler: Any,
    batch: Any,
    logits_output: Any,
    tokens: torch.Tensor,
    positions: torch.Tensor,
    penalties: Iterable[tuple[slice, Penalties]],
) -> torch.Tensor:
    """Draw a token at each of n positions of B requests.

    Args:
        sampler: SGLang's `Sampler`.
        batch: the `ScheduleBatch`.
        logits_output: its `next_token_logits` are the fused rows, [B * n, width] float32; they are overwritten. It gets
            the log probabilities that requests ask for, as SGLang reads them after a verify.
        tokens: [B, n] int64, what the models have read: the last token and the drafts.
        positions: [B, n] int64 of `tokens` in their requests; seeds draw by them.
        penalties: of parts of the B * n rows, one at a time.

    Returns:
        [B * n] integers.
    """
    each = tokens.shape[1]
    fused = logits_output.next_token_logits
    info = _at_each_position(batch, tokens)
    _penalize(fused, info, penalties)
    # As large as all fused rows, so not before penalties are let go of.
    if (bias := batch.sampling_info.logit_bias) is not None:
        info.logit_bias = bias.repeat_interleave(each, dim=0)
    info.apply_logits_bias(fused)
    cut_implausible(logits_output, info.logit_bias)
    top_logprobs = _repeated(batch.top_logprobs_nums, each) or [0] * len(fused)
    named_ids = _repeated(batch.token_ids_logprobs, each) or [None] * len(fused)
    drawn = sampler(logits_output, info, batch.return_logprob, top_logprobs, named_ids, positions.flatten())
    if batch.return_logprob:
        logits_output.next_token_logprobs = logits_output.next_token_logprobs.view(-1, each)
    return drawn


def _penalize(fused: torch.Tensor, info: Any, penalties: Iterable[tuple[slice, Penalties]]) -> None:
    """As SGLang does it, and before masks and biases, as it does; each part is let go of before the next is made."""
    for rows, (additive, scaling) in penalties:
        alone = dataclasses.replace(
            info, grammar_mask=None, acc_additive_penalties=additive, acc_scaling_penalties=scaling
        )
        alone.apply_logits_bias(fused[rows])
        del alone, additive, scaling


def _at_each_position(batch: Any, tokens: torch.Tensor) -> Any:
    """The batch's `SamplingBatchInfo` with a row per position, without its bias."""
    each, info = tokens.shape[1], batch.sampling_info
    rows = {
        name: value.repeat_interleave(each, dim=0)
        for name in _BY_REQUEST
        if torch.is_tensor(value := getattr(info, name))
    }
    return dataclasses.replace(
        info,
        **rows,
        logit_bias=None,
        grammars=None,
        grammar_mask=chain_mask(batch.reqs, tokens, info.vocab_size) if batch.has_grammar else None,
        penalizer_orchestrator=None,
        # They are those of the prompt's last token.
        acc_additive_penalties=None,
        acc_scaling_penalties=None,
    )


def _repeated(values: list | None, each: int) -> list:
    return [value for value in values or [] for _ in range(each)]
