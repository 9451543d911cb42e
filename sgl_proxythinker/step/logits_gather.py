"""How the logits of models on different ranks meet: one collective, then every rank holds all of them.

Each rank sends a part of the columns of the model that is not everywhere, in the dtype that the model computed, and
after it every rank fuses and samples the same rows. The first rank's token counts for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from sgl_proxythinker.placement import Placement
from sgl_proxythinker.roles import Role
from sgl_proxythinker.step.logits import ShardedLogits


class LogitsGather:
    """Brings the logits of all roles to all ranks.

    Args:
        placement: which ranks run what.
        group: SGLang's `GroupCoordinator` over all ranks.
        vocab_size: columns that are tokens; the others are not sent.
        dtype: what is sent; the one that the models compute their logits in loses nothing.
        device: of the models.
    """

    def __init__(self, placement: Placement, group: Any, vocab_size: int, dtype: torch.dtype, device: str):
        self._group = group
        self._options = {"dtype": dtype, "device": device}
        self._rank = group.rank_in_group
        self._ranks = {role: ranks for role, ranks in placement.ranks.items() if not placement.is_everywhere(role)}
        self._vocab_size = vocab_size
        self._widths = _widths(placement, vocab_size)

    def gather(self, here: Mapping[Role, torch.Tensor], rows: Mapping[Role, int]) -> dict[Role, ShardedLogits]:
        """Bring together what ran. Collective, unless every model that ran did so on all ranks.

        Args:
            here: [rows, >= vocab_size] raw logits of the models that ran on this rank. Read only.
            rows: how many rows ran, for each role that ran, on whatever ranks; the same on all ranks.

        Returns:
            The logits of the roles in `rows`.
        """
        travelling = [role for role in rows if role in self._ranks]
        gathered = {role: ShardedLogits.whole(here[role]) for role in rows if role not in self._ranks}
        if not travelling:
            return gathered
        # As large on every rank as the largest part is; what a rank doesn't fill is not read.
        shape = max(rows[role] for role in travelling), max(self._widths[role] for role in travelling)
        sent = torch.empty(shape, **self._options)
        for role in travelling:
            if role in here:
                self._fill(sent, role, here[role])
        received = torch.empty(self._group.world_size, *shape, **self._options)
        torch.distributed.all_gather_into_tensor(received.flatten(0, 1), sent, group=self._group.device_group)
        for role in travelling:
            ranks, width = self._ranks[role], self._widths[role]
            gathered[role] = ShardedLogits(received[ranks[0] : ranks[-1] + 1, : rows[role], :width])
        return gathered

    def _fill(self, sent: torch.Tensor, role: Role, logits: torch.Tensor) -> None:
        width = self._widths[role]
        first = self._ranks[role].index(self._rank) * width
        last = min(first + width, self._vocab_size)
        sent[: len(logits), : last - first].copy_(logits[:, first:last])


def gathered_bytes(placement: Placement, columns: int, rows: int, dtype: torch.dtype) -> int:
    """What a `LogitsGather` takes on each rank for so many rows of every model; 0 where all models are everywhere."""
    widths = _widths(placement, columns).values()
    return (placement.world_size + 1) * rows * max(widths, default=0) * dtype.itemsize


def _widths(placement: Placement, columns: int) -> dict[Role, int]:
    """Columns that a rank sends, of each model that is not everywhere."""
    return {
        role: math.ceil(columns / len(ranks))
        for role, ranks in placement.ranks.items()
        if not placement.is_everywhere(role)
    }


def logits_dtype(model_dtypes: set[torch.dtype], server_args: Any) -> torch.dtype:
    """The dtype in which logits of these models lose nothing."""
    if len(model_dtypes) > 1 or server_args.enable_fp32_lm_head:
        return torch.float32
    return next(iter(model_dtypes))


def one_token_for_all(token_ids: torch.Tensor, group: Any) -> torch.Tensor:
    """Let every rank go on with the tokens of the first. Collective.

    Args:
        token_ids: integers of any shape, a token for each row, sampled on this rank; overwritten on all ranks but the
            first.
        group: SGLang's `GroupCoordinator` over all ranks.
    """
    return group.broadcast(token_ids, src=0)


def least_of_all(number: int, group: Any) -> int:
    """The smallest of all ranks' numbers, on the host. Collective.

    Args:
        number: this rank's.
        group: SGLang's `GroupCoordinator` over all ranks.
    """
    least = torch.tensor(number)
    torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN, group.cpu_group)
    return int(least)
