"""Memory of the rows of a step on a rank, beside what its models hold, for both plans: the server's and the doctor's.

Nothing is set aside for it: it comes out of what `mem_fraction_static` leaves, as SGLang's own memory of a step does.
"""

from __future__ import annotations

from typing import Any

import torch

from sgl_proxythinker.models.memory import RowMemory
from sgl_proxythinker.placement import Placement
from sgl_proxythinker.roles import DRAFTER
from sgl_proxythinker.step.logits_gather import gathered_bytes
from sgl_proxythinker.step.statistics import ROWS_AT_ONCE

# Rows of which penalties are made at the same time: a cycle of 64 requests with three drafts takes as many kernels as
# without parts, and one of 256 requests a fourth of the memory.
PENALIZED_AT_ONCE = 256
# Requests whose tokens are counted have a row each, from so many on; where more are needed, twice as many.
FIRST_COUNTED = 8

_VALUE = 4  # bytes of a float32 or an int32
# Of an id in a row for which penalties are made: the count, the float32 that it becomes, whether there is any, and what
# is small beside these. Seen on one H200: 9.02 of decode steps, 6.05 of chains of four.
_PENALIZED = 10
# Of a row that is traced: what is known of it, and its way to the host.
_TRACED_ROW = 1024
# Float32 of an id in a row that is traced where there is no kernel for it.
_TRACED_IN_TORCH = 8


def largest_batch(server_args: Any, most_running: int | None) -> int:
    """How many requests the plan is for: the largest batch that has a CUDA graph, or that may run; on a CPU all.

    More may run, without a graph, where their prompts and answers are short.

    Args:
        server_args: SGLang's, resolved.
        most_running: requests that may run at once; None: not known.
    """
    captured: int = server_args.cuda_graph_config.decode.max_bs
    if most_running is None:
        return captured
    return most_running if server_args.device == "cpu" else min(captured, most_running)


def row_memory(
    requests: int, width: int, drafts: int, *, placement: Placement, rank: int, dtype: torch.dtype, by_kernels: bool
) -> RowMemory:
    """What the rows of a batch take at most on a rank.

    Args:
        requests: of the batch, all of them guided, traced, penalized and biased.
        width: columns of a fused row.
        drafts: tokens that are written ahead; 0: none.
        placement: which ranks run what.
        rank: of them; the first one tells what guidance did.
        dtype: in which logits travel between ranks.
        by_kernels: whether its rows are read by kernels, as on a GPU.
    """
    rows = requests * (drafts + 1)
    fused = rows * width * _VALUE
    traced = 0
    if rank == 0:
        traced = rows * _TRACED_ROW
        if not by_kernels:
            traced += min(rows, ROWS_AT_ONCE) * width * _VALUE * _TRACED_IN_TORCH
    penalized = 0
    if drafts:  # SGLang's own without
        # Of a cycle a part; of prompts that are read all, which SGLang applies at once. Then a bias for each row.
        for_a_moment = max(min(rows, max(PENALIZED_AT_ONCE, requests)) * width * _PENALIZED, fused)
        penalized = counted_rows(requests) * width * _VALUE + for_a_moment
    drafted = fused if drafts and DRAFTER in placement.roles_on(rank) else 0
    return RowMemory(fused, drafted, traced, penalized, gathered_bytes(placement, width, rows, dtype))


def counted_rows(requests: int) -> int:
    """How many rows there are once so many requests have needed one at once. One more is nobody's."""
    rows = 1
    while rows <= requests:
        rows += max(FIRST_COUNTED, rows)
    return rows
