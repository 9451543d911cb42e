"""How the KV pools of the models come to have the same slots, and what a token takes in each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sgl_proxythinker.placement import GIB
from sgl_proxythinker.upstream.runtime import (
    KVCacheConfigurator,
    ModelRunner,
    create_memory_pool_configurator,
    get_available_gpu_memory,
    get_world_group,
)


def kv_bytes_per_token(runner: ModelRunner) -> int:
    """Bytes that one token takes in this model's KV pool on this rank."""
    runner.init_kv_cache_configurator()
    return create_memory_pool_configurator(runner.kv_cache_configurator)._cell_size


@dataclasses.dataclass(slots=True, kw_only=True)
class _Budgeted(KVCacheConfigurator):
    """Upstream's sizing with one model's share of the free bytes in place of all of them."""

    share: Callable[[int], int]

    def _profile_available_bytes(self, pre_model_load_memory: int) -> int:
        # Spelled out: zero-argument super() doesn't survive a dataclass with slots.
        least = KVCacheConfigurator._profile_available_bytes(self, pre_model_load_memory)
        return self.share(least + self._more_than_least())

    def _more_than_least(self) -> int:
        """Bytes by which this rank has more free memory than the rank that has the least, which upstream counts."""
        world = get_world_group()
        if world.world_size == 1:
            return 0
        free = get_available_gpu_memory(self.device, self.gpu_id)
        least = get_available_gpu_memory(self.device, self.gpu_id, distributed=True, cpu_group=world.cpu_group)
        return max(0, int((free - least) * GIB))


@dataclasses.dataclass(slots=True, kw_only=True)
class _Sized(KVCacheConfigurator):
    """Upstream's pools, of a size that was resolved for another model."""

    resolved: Any

    def _resolve_memory_pool_config(self, pre_model_load_memory: int) -> Any:
        return self.resolved


@contextmanager
def primary_share(runner: ModelRunner, share: Callable[[int], int]) -> Iterator[None]:
    """Within it the runner's KV pool is sized from `share(free bytes)`; user caps and page size still apply."""
    with _configurator(runner, _Budgeted, share=share):
        yield


@contextmanager
def sized_like(runner: ModelRunner, primary: ModelRunner) -> Iterator[None]:
    """Within it the runner's KV pool gets exactly the primary's slots."""
    with _configurator(runner, _Sized, resolved=primary.memory_pool_config):
        yield


@contextmanager
def _configurator(runner: ModelRunner, kind: type[KVCacheConfigurator], **extra: Any) -> Iterator[None]:
    """Let the runner build a subclass of the configurator that it builds."""
    build = runner.init_kv_cache_configurator

    def build_ours() -> None:
        build()
        upstreams = runner.kv_cache_configurator
        fields = {f.name: getattr(upstreams, f.name) for f in dataclasses.fields(upstreams) if f.init}
        runner.kv_cache_configurator = kind(**fields, **extra)

    runner.init_kv_cache_configurator = build_ours
    try:
        yield
    finally:
        del runner.init_kv_cache_configurator
