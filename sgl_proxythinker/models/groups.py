"""The tensor-parallel group of each role, and what of a process is a role's while its model is worked with.

SGLang's own TP group spans all ranks: over it the schedulers share requests, and logits and tokens meet. A model whose
group is another one is built, captured and run while that group is in the place of SGLang's. Every small model has a
group of its own even where it is on all ranks: two streams that issue collectives of one communicator do so in
different orders on different ranks, and hang.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from sgl_proxythinker.placement import Placement
from sgl_proxythinker.roles import BASE, Role
from sgl_proxythinker.upstream.runtime import (
    bootstrap,
    get_tp_group,
    get_world_group,
    init_model_parallel_group,
    parallel_state,
    patch_tensor_parallel_group,
)

_CPU_CORES = "SGLANG_CPU_OMP_THREADS_BIND"


class RoleGroup:
    """One role's group, seen from this rank.

    Args:
        coordinator: SGLang's `GroupCoordinator` over the role's ranks; None: SGLang's own TP group, as it stands.
        ps: SGLang's `ParallelState` of this rank in the world.
    """

    def __init__(self, coordinator: Any | None, ps: Any):
        self._coordinator = coordinator
        self.ps = ps
        if coordinator is not None:
            rank, size = coordinator.rank_in_group, coordinator.world_size
            self.ps = dataclasses.replace(ps, tp_rank=rank, tp_size=size, attn_tp_rank=rank, attn_tp_size=size)

    @contextmanager
    def active(self) -> Iterator[None]:
        """While it is open, layers that are built or run are sharded over this group."""
        if self._coordinator is None:
            yield
            return
        with ExitStack() as stack:
            stack.enter_context(patch_tensor_parallel_group(self._coordinator))
            for name in ("_ATTN_TP", "_MOE_TP"):
                stack.enter_context(swapped(parallel_state, name, self._coordinator))
            yield

    @contextmanager
    def cores(self) -> Iterator[None]:
        """While it is open, a model is built whose ranks on a CPU take the cores of this group's ranks only."""
        everyones = os.environ.get(_CPU_CORES, "")
        cores = everyones.split("|")
        if self._coordinator is None or len(cores) == 1:
            yield
            return
        os.environ[_CPU_CORES] = "|".join(cores[rank] for rank in self._coordinator.ranks)
        try:
            yield
        finally:
            os.environ[_CPU_CORES] = everyones


@contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give `owner` another value of an attribute, and its own back."""
    own = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, own)


def join_world(server_args: Any, ps: Any, nccl_port: int, model_config: Any) -> None:
    """Make SGLang's groups over all ranks, as the first model of a process does when it is built."""
    # Communicators are made on the current device.
    torch.get_device_module(server_args.device).set_device(ps.gpu_id)
    bootstrap.init_torch_distributed(
        server_args=server_args, model_config=model_config, device=server_args.device, ps=ps, dist_port=nccl_port,
        is_draft_worker=False, local_omp_cpuid=None,
    )  # fmt: skip


@contextmanager
def joined_world() -> Iterator[None]:
    """While it is open, a model that is built finds the groups of its process in place of making them."""
    original = bootstrap.init_torch_distributed

    def find_groups(**kwargs: Any) -> Any:
        return original(**{**kwargs, "is_draft_worker": True})

    with swapped(bootstrap, "init_torch_distributed", find_groups):
        yield


def make_groups(placement: Placement, ps: Any) -> dict[Role, RoleGroup]:
    """The groups of the roles on this rank, the base first. Collective: every rank of the world calls it.

    Args:
        placement: which ranks run what.
        ps: SGLang's `ParallelState` of this rank in the world.
    """
    here = placement.roles_on(ps.tp_rank)
    if placement.world_size == 1:
        return {role: RoleGroup(None, ps) for role in here}
    groups = {BASE: RoleGroup(None, ps)} if placement.is_everywhere(BASE) else {}
    for roles in _made_together(placement):
        ranks = [list(placement.ranks[role]) for role in roles]
        rest = set(range(placement.world_size)).difference(*ranks)
        # Upstream's constructor wants every rank in one of the groups that are made together.
        coordinator = init_model_parallel_group(
            [*ranks, *([rank] for rank in sorted(rest))],
            get_world_group().local_rank,
            torch.distributed.get_backend(get_tp_group().device_group),
            group_name="_".join(("proxythinker", *roles)),
        )
        groups.update({role: RoleGroup(coordinator, ps) for role in roles if role in here})
    return {role: groups[role] for role in here}


def _made_together(placement: Placement) -> list[tuple[Role, ...]]:
    """The roles that need a group, in sets without a common rank."""
    small = placement.small_models
    if not placement.is_everywhere(BASE):
        return [tuple(placement.ranks)]
    if placement.is_everywhere(small[0]):
        return [(role,) for role in small]
    return [small]
