"""Penalties and `min_new_tokens` at each position of a chain, from every token before it.

SGLang's own count one token a step, whatever a verify accepts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch


def is_penalized(req: Any) -> bool:
    """Whether what a request has written changes its next token. `req`: SGLang's `Req`."""
    params = req.sampling_params
    return bool(
        params.frequency_penalty
        or params.presence_penalty
        or params.repetition_penalty != 1.0
        or params.min_new_tokens > len(req.output_ids)
    )


def chain_penalties(
    reqs: Sequence[Any], tokens: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor] | tuple[None, None]:
    """What is added to the logits of each position, and what then scales them, as SGLang's sampler takes both.

    Args:
        reqs: SGLang's `Req` of each of B requests, whose `output_ids` are complete.
        tokens: [B, n] the chain that is read: each request's last token, of `output_ids`, and its drafts.
        width: columns of the logits.

    Returns:
        Two [B * n, width] float32 on the device of `tokens`; None and None where no request is penalized.
    """
    if not any(map(is_penalized, reqs)):
        return None, None
    each = tokens.shape[1]
    additive = torch.zeros(len(reqs) * each, width, device=tokens.device)
    scaling = torch.ones_like(additive)
    for row, (req, drafts) in enumerate(zip(reqs, tokens[:, 1:].tolist(), strict=True)):
        params = req.sampling_params
        seen = Counter(req.output_ids)
        for offset in range(each):
            if offset:
                seen[drafts[offset - 1]] += 1
            place = row * each + offset
            ids = torch.tensor(list(seen), dtype=torch.int64, device=tokens.device)
            counts = torch.tensor(list(seen.values()), dtype=torch.float32, device=tokens.device)
            additive[place, ids] -= counts * params.frequency_penalty + params.presence_penalty
            scaling[place, ids] = params.repetition_penalty
            if len(req.output_ids) + offset < params.min_new_tokens:
                additive[place, list(_ends(req))] = -torch.inf
    return additive, scaling


def _ends(req: Any) -> set[int]:
    """The ids that SGLang ends a request at."""
    tokenizer = req.tokenizer
    ends = (req.sampling_params.stop_token_ids or set()) | (tokenizer.additional_stop_token_ids or set())
    return ends | ({tokenizer.eos_token_id} - {None})
