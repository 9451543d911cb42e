"""What goes from one cycle to the next: the token of each request that no model has read yet."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from sgl_proxythinker.upstream.speculation import SpecInput, SpecInputType


@dataclasses.dataclass
class PendingTokens(SpecInput):
    """The last sampled token of each of B requests, as SGLang's scheduler relays, filters and merges it."""

    bonus_tokens: torch.Tensor  # [B] integers
    future_indices: Any = None  # where the relay keeps them, once it does
    # Read by the relay, and nothing of ours.
    topk_p: Any = None
    topk_index: Any = None
    hidden_states: Any = None
    dsa_topk_indices: Any = None

    def __post_init__(self) -> None:
        super().__init__(SpecInputType.EAGLE_DRAFT)

    def filter_batch(self, new_indices: torch.Tensor, new_indices_cpu: Any = None) -> None:
        if self.future_indices is not None:
            self.future_indices = self.future_indices[new_indices]
        else:
            self.bonus_tokens = self.bonus_tokens[new_indices]

    def merge_batch(self, other: PendingTokens) -> None:
        if self.future_indices is not None:
            self.future_indices = torch.cat([self.future_indices, other.future_indices])
        else:
            self.bonus_tokens = torch.cat([self.bonus_tokens, other.bonus_tokens])
