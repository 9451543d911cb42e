"""Penalties and `min_new_tokens` of a request that was retracted: they count what it had written, as if it had gone on.

SGLang's penalizers begin anew with each prefill. Under drafts `speculation/penalties.py` counts in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sgl_proxythinker.upstream.scheduling import (
    BatchedFrequencyPenalizer,
    BatchedMinNewTokensPenalizer,
    BatchedPresencePenalizer,
    BatchedRepetitionPenalizer,
)

# What each adds up, [B, vocab_size] float32, and what it adds, [B, 1].
_SET = {
    BatchedPresencePenalizer: ("cumulated_presence_penalties", "presence_penalties"),
    BatchedRepetitionPenalizer: ("cumulated_repetition_penalties", "repetition_penalties"),
}


def count_written(orchestrator: Any, reqs: Sequence[Any], comes_again: bool) -> None:
    """Let penalizers that were just made know what their requests had written.

    Args:
        orchestrator: SGLang's `BatchedPenalizerOrchestrator` of a prefill.
        reqs: SGLang's `Req` of each of B requests.
        comes_again: whether the first decode step counts the last of `output_ids` too. With overlap it is prepared
            before the prefill's result is known. (Not where another prefill comes between: then the frequency penalty
            has that token once less. SGLang's own lag a step there, or don't, in the same way.)
    """
    written = [list(req.output_ids) for req in reqs]
    everything = _pairs(written, orchestrator.device)
    for kind, penalizer in orchestrator.penalizers.items():
        if not penalizer.is_prepared():
            continue
        if kind is BatchedMinNewTokensPenalizer:
            penalizer.len_output_tokens += torch.tensor(
                [[len(tokens)] for tokens in written], dtype=torch.int32, device=orchestrator.device
            )
        elif kind is BatchedFrequencyPenalizer:
            counted = [tokens[:-1] for tokens in written] if comes_again else written
            rows, tokens = _pairs(counted, orchestrator.device)
            penalizer.cumulated_frequency_penalties.index_put_(
                (rows, tokens), penalizer.frequency_penalties[rows, 0], accumulate=True
            )
        else:
            rows, tokens = everything
            total, each = (getattr(penalizer, name) for name in _SET[kind])
            total[rows, tokens] = each[rows, 0]


def _pairs(written: Sequence[Sequence[int]], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """[N] int64 each: the row of every token, and the token."""
    pairs = [(row, token) for row, tokens in enumerate(written) for token in tokens]
    rows, tokens = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T.to(device)
    return rows, tokens
