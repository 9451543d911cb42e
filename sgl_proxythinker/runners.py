"""One proxy's model in SGLang's terms, and how the three KV pools come to have the same slots."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.roles import Role
from sgl_proxythinker.upstream.runtime import (
    CaptureHiddenMode,
    ForwardBatch,
    KVCacheConfigurator,
    ModelRunner,
    MultiModalStaticCache,
    TpModelWorker,
    create_memory_pool_configurator,
    draft_server_args_copy,
    envs,
    get_context,
    mm_utils,
)


class ProxyModel:
    """The expert or the amateur: a draft worker to SGLang, which is how it lets a process hold a second model.

    Args:
        role: which of the two.
        config: both proxies' configuration.
        base_model_config: the base's `ModelConfig`; the proxy serves the same context length.
        kwargs: the arguments of the base's `TpModelWorker`.
    """

    def __init__(self, role: Role, config: ProxyConfig, base_model_config: Any, server_args: Any, **kwargs: Any):
        self.role = role
        self.server_args = _proxy_server_args(role, config, server_args, base_model_config)
        with self.arguments():
            self.worker = TpModelWorker(server_args=self.server_args, is_draft_worker=True, **kwargs)
        # SGLang keeps image embeddings in one process-wide cache by the image's hash, whichever model made them.
        self._image_cache = MultiModalStaticCache(envs.SGLANG_VLM_CACHE_SIZE_MB.get() << 20)

    @property
    def runner(self) -> ModelRunner:
        return self.worker.model_runner

    @property
    def model_path(self) -> str:
        return self.runner.model_config.model_path

    @contextmanager
    def arguments(self) -> Iterator[None]:
        """While layers are built they read the process' arguments: let them be this model's."""
        with get_context().preserve_config():
            get_context().set_server_args(self.server_args)
            yield

    def logits(self, forward_batch: ForwardBatch, vocab_size: int) -> torch.Tensor:
        """Run this model on the base's batch.

        Args:
            forward_batch: the batch that the base is about to run. Read only.
            vocab_size: columns to keep.

        Returns:
            [B, vocab_size] float32 logits of each request's last position, a copy: graphs of models with equally wide
            heads share one output buffer.
        """
        with self._own_image_cache():
            output = self.runner.forward(_without_logprobs(forward_batch))
        return output.logits_output.next_token_logits[:, :vocab_size].clone()

    @contextmanager
    def _own_image_cache(self) -> Iterator[None]:
        bases, mm_utils.embedding_cache = mm_utils.embedding_cache, self._image_cache
        try:
            yield
        finally:
            mm_utils.embedding_cache = bases


def _proxy_server_args(role: Role, config: ProxyConfig, server_args: Any, base_model_config: Any) -> Any:
    options = config.options(role)
    arguments = draft_server_args_copy(server_args, base_model_config)
    arguments.override(
        f"proxythinker.{role}",
        speculative_draft_model_path=config.path(role),
        speculative_draft_model_revision=options.revision,
        speculative_draft_model_quantization=options.quantization,
        # Where a draft has no revision of its own SGLang falls back to the base's, which is another repository's.
        revision=options.revision,
        dtype=options.dtype or server_args.dtype,
        load_format=options.load_format or server_args.load_format,
    )
    return arguments


def _without_logprobs(forward_batch: ForwardBatch) -> ForwardBatch:
    """The same tokens, positions and slots, without the by-products that only the base's row is asked for."""
    view = copy.copy(forward_batch)
    view.return_logprob = False
    view.top_logprobs_nums = view.token_ids_logprobs = None
    view.extend_input_logprob_token_ids_gpu = None
    view.capture_hidden_mode = CaptureHiddenMode.NULL
    if view.contains_mm_inputs():
        # Embedding an image clamps the ids that stand for it in place, and the next model looks for them.
        view.input_ids = view.input_ids.clone()
    return view


def kv_bytes_per_token(runner: ModelRunner) -> int:
    """Bytes that one token takes in this model's KV pool on this rank."""
    runner.init_kv_cache_configurator()
    return create_memory_pool_configurator(runner.kv_cache_configurator)._cell_size


def weight_bytes(runner: ModelRunner) -> int:
    """Bytes of this model's parameters and buffers on this rank."""
    return sum(t.numel() * t.element_size() for t in (*runner.model.parameters(), *runner.model.buffers()))


@dataclasses.dataclass(slots=True, kw_only=True)
class _Budgeted(KVCacheConfigurator):
    """Upstream's sizing with one model's share of the free bytes in place of all of them."""

    share: Callable[[int], int]

    def _profile_available_bytes(self, pre_model_load_memory: int) -> int:
        # Spelled out: zero-argument super() doesn't survive a dataclass with slots.
        return self.share(KVCacheConfigurator._profile_available_bytes(self, pre_model_load_memory))


@dataclasses.dataclass(slots=True, kw_only=True)
class _Sized(KVCacheConfigurator):
    """Upstream's pools, of a size that was resolved for another model."""

    resolved: Any

    def _resolve_memory_pool_config(self, pre_model_load_memory: int) -> Any:
        return self.resolved


@contextmanager
def base_share(runner: ModelRunner, share: Callable[[int], int]) -> Iterator[None]:
    """Within it the runner's KV pool is sized from `share(free bytes)`; user caps and page size still apply."""
    with _configurator(runner, _Budgeted, share=share):
        yield


@contextmanager
def sized_like(runner: ModelRunner, base: ModelRunner) -> Iterator[None]:
    """Within it the runner's KV pool gets exactly the base's slots."""
    with _configurator(runner, _Sized, resolved=base.memory_pool_config):
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
