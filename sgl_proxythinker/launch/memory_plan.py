"""How many tokens of KV fit beside the weights of several models: estimated from configs, by SGLang's own budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.models.memory import GraphMemory, KVBudget, ModelMemory, RankMemory, graph_table, plan_table
from sgl_proxythinker.placement import GIB, Placement, Shape
from sgl_proxythinker.roles import BASE, DRAFTER, Role
from sgl_proxythinker.step.logits_gather import logits_dtype
from sgl_proxythinker.step.row_memory import largest_batch, row_memory

if TYPE_CHECKING:
    from sgl_proxythinker.launch.checkpoints import Models

_MIB = 1 << 20
# Of a GPU, before the first weight: what CUDA, SGLang and its kernels hold. Seen on one H200: 1.3 GiB of 140.4.
HELD_BEFORE_WEIGHTS = int(1.3 * GIB)
# And what NCCL holds where there are several ranks. Seen on two H200.
HELD_BY_COLLECTIVES = int(0.85 * GIB)
# And for each model whose ranks are a group of their own: of two (seen on two H200, `shared`, and on four H100, `split`
# and `dedicated`), and of four (H100, `shared`). More were not seen and count as four.
HELD_BY_GROUP_OF_2, HELD_BY_GROUP_OF_4 = int(0.56 * GIB), int(0.80 * GIB)
# Of the graphs of a model, those of decode steps and those that read chains each: so much, and so much for each row of
# the largest one, more where a model has several ranks. And of a GPU whose models run, more where some run elsewhere:
# workspaces, and what is made when it is first needed. Fitted to starts on one and two H200 and four H100, 64 to 384
# rows, which captured two to six sizes (`tests/test_doctor.py`).
_GRAPHS_BYTES, _GRAPH_ROW_BYTES, _SHARDED_GRAPH_ROW_BYTES = int(0.10 * GIB), int(0.54 * _MIB), int(0.97 * _MIB)
_HELD_BY_STEPS, _HELD_BY_STEPS_APART = int(0.75 * GIB), int(1.35 * GIB)
_LOGIT_BYTES = 4
_16_BITS = 2
_KV_BYTES = {"fp8_e5m2": 1, "fp8_e4m3": 1, "bfloat16": 2, "bf16": 2}
_NO_GRAPHS = "disabled"  # SGLang's `Backend.DISABLED`
_PROMPTS = (2_048, 8_192, 32_768)


def held_before_weights(placement: Placement) -> int:
    """Bytes of the fullest GPU that are taken before the first weight."""
    if placement.world_size == 1:
        return HELD_BEFORE_WEIGHTS
    groups = {
        role: {1: 0, 2: HELD_BY_GROUP_OF_2}.get(len(ranks), HELD_BY_GROUP_OF_4)
        for role, ranks in placement.ranks.items()
        if role != BASE or not placement.is_everywhere(BASE)  # then its group is the server's
    }
    most = max(sum(groups.get(role, 0) for role in placement.roles_on(rank)) for rank in range(placement.world_size))
    return HELD_BEFORE_WEIGHTS + HELD_BY_COLLECTIVES + most


class MemoryPlan(NamedTuple):
    """What each rank holds, and how much it can serve."""

    ranks: Sequence[Mapping[Role, ModelMemory]]
    beside: Sequence[RankMemory]  # weights and KV
    largest_batch: int  # requests that it is for
    most_running: int | None  # requests, whatever room there is; None: SGLang says, and they are thousands
    tokens: int  # slots of KV in each pool; 0: the weights leave no room
    most_tokens: int  # of one request: the context length that is served

    @property
    def left_bytes(self) -> int:
        """Of the device of the rank that has the least; below 0: so much is missing."""
        return min(rank.left_bytes for rank in self.beside)

    def batches(self) -> dict[int, int]:
        """How many requests run at once, by how many tokens each of them has."""
        lengths = sorted({length for length in _PROMPTS if length < self.most_tokens} | {self.most_tokens})
        room = {length: self.tokens // length for length in lengths}
        return {length: min(count, self.most_running or count) for length, count in room.items()}

    def __str__(self) -> str:
        room = ", ".join(f"{count:,} of {length:,} tokens" for length, count in self.batches().items())
        beside = f"beside weights and KV, for {self.largest_batch:,} requests:\n{graph_table(self.beside)}"
        return f"{plan_table(self.ranks, self.tokens)}\n{beside}\nrequests at once: {room}"


def plan_memory(
    shapes: Mapping[Role, Shape],
    placement: Placement,
    server_args: Any,
    memory_bytes: int,
    drafts: int,
    cache_bytes: int,
) -> MemoryPlan:
    """Divide the memory of each rank's GPU between weights, KV and what graphs write.

    SGLang gives weights and KV `mem_fraction_static` of what was free before the first weight; one slot number is a
    token of every model, so the rank with the least room decides.

    Args:
        shapes: of the models; with `weight_bytes`.
        server_args: SGLang's, resolved for such a GPU.
        memory_bytes: of one GPU.
        drafts: tokens that the expert writes ahead; 0: none.
        cache_bytes: of each model's cache of image embeddings.
    """
    free_before = memory_bytes - held_before_weights(placement)
    budget = int(free_before * server_args.mem_fraction_static)
    dtypes = {role: getattr(torch, shape.dtype) for role, shape in shapes.items()}
    kv_bytes = {role: _KV_BYTES.get(server_args.kv_cache_dtype, dtype.itemsize) for role, dtype in dtypes.items()}
    ranks = [
        {
            role: ModelMemory(
                shapes[role].weight_bytes // len(placement.ranks[role]),
                shapes[role].token_bytes_of_rank(len(placement.ranks[role])) * kv_bytes[role] // _16_BITS,
            )
            for role in placement.roles_on(rank)
        }
        for rank in range(placement.world_size)
    ]
    tokens = min(_tokens(models, budget) for models in ranks)
    if server_args.max_total_tokens:
        tokens = min(tokens, server_args.max_total_tokens)
    requests = largest_batch(server_args, server_args.max_running_requests)
    is_captured = captures_decodes(server_args)
    is_apart = not all(map(placement.is_everywhere, placement.ranks))
    held = _HELD_BY_STEPS_APART if is_apart else _HELD_BY_STEPS
    beside = []
    for rank, models in enumerate(ranks):
        graphs = {}
        for role in models:
            chains = requests * (drafts + 1) if drafts and role != DRAFTER else 0
            graph_bytes = sum(_graph_bytes(rows, len(placement.ranks[role])) for rows in (requests, chains) if rows)
            # Of the whole head on each rank, and without graphs as well.
            logits_bytes = max(requests, chains) * shapes[role].head_rows * _LOGIT_BYTES
            graphs[role] = GraphMemory(graph_bytes * is_captured, logits_bytes, cache_bytes)
        taken = held + sum(memory.weight_bytes + tokens * memory.token_bytes for memory in models.values())
        taken += sum(memory.graph_bytes + memory.logits_bytes for memory in graphs.values())
        of_rows = row_memory(requests, shapes[BASE].head_rows, drafts, placement=placement, rank=rank,
                             dtype=logits_dtype(set(dtypes.values()), server_args), by_kernels=True)  # fmt: skip
        beside.append(RankMemory(graphs, of_rows, free_before - taken))
    return MemoryPlan(ranks, beside, requests, server_args.max_running_requests, tokens, server_args.context_length)


def _graph_bytes(rows: int, ranks: int) -> int:
    """Of the graphs of a model, logits aside, of which the largest has so many rows."""
    return _GRAPHS_BYTES + rows * (_GRAPH_ROW_BYTES if ranks == 1 else _SHARDED_GRAPH_ROW_BYTES)


def captures_decodes(server_args: Any) -> bool:
    """Whether steps of decoding have CUDA graphs. `server_args`: SGLang's, resolved."""
    return bool(server_args.cuda_graph_config.decode.backend != _NO_GRAPHS)


def settle_drafts(
    config: ProxyConfig, models: Models, placement: Placement, server_args: Any, memory_bytes: int | None
) -> tuple[ProxyConfig, str | None]:
    """Drafts by default give way where their rows don't fit, by the plan. A wish doesn't: it may fit.

    Args:
        config: with drafts that go with all else, or without.
        models: vision towers that two of them may share count twice.
        placement, server_args: as for `plan_memory`.
        memory_bytes: of one GPU; None: not known.

    Returns:
        What is served; and why it has no drafts, a sentence without its full stop, where the default had to give way.
    """
    is_default = config.drafts and not config.asks_for_drafts
    weights = [shape.weight_bytes for shape in models.shapes.values()]
    if not (is_default and captures_decodes(server_args) and memory_bytes and all(weights)):
        return config, None
    with_drafts, without = (
        plan_memory(models.shapes, placement, server_args, memory_bytes, drafts, models.image_cache_bytes)
        for drafts in (config.drafts, 0)
    )
    if not without.tokens or with_drafts.left_bytes >= 0:
        return config, None
    return config.without_drafts(), (
        f"their rows take {(without.left_bytes - with_drafts.left_bytes) / GIB:.2f} GiB of a GPU and "
        f"{max(0, without.left_bytes) / GIB:.2f} are left for them, as planned"
    )


def _tokens(models: Mapping[Role, ModelMemory], budget: int) -> int:
    left = budget - sum(memory.weight_bytes for memory in models.values())
    return max(0, KVBudget(left, {role: memory.token_bytes for role, memory in models.items()}).tokens)
