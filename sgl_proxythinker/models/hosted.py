"""One model on this rank in SGLang's terms, and how the KV pools come to have the same slots."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.models.groups import RoleGroup, swapped
from sgl_proxythinker.models.sm_partition import MOST_ROWS, stream_on
from sgl_proxythinker.placement import GIB
from sgl_proxythinker.roles import Role
from sgl_proxythinker.upstream.runtime import (
    CaptureHiddenMode,
    DecodeCudaGraphRunner,
    ForwardBatch,
    GraphSharedOutput,
    KVCacheConfigurator,
    ModelRunner,
    ModelRunnerOutput,
    MultiModalStaticCache,
    TpModelWorker,
    create_memory_pool_configurator,
    draft_server_args_copy,
    envs,
    get_available_gpu_memory,
    get_context,
    get_resources,
    get_world_group,
    input_buffers,
    mm_utils,
)


class HostedModel:
    """One role's model on this rank, and what of the process must be its own while it is worked with.

    Args:
        role: which of the three.
        group: its tensor-parallel group.
        server_args: its arguments; None: the server's own, as they stand.
    """

    def __init__(self, role: Role, group: RoleGroup, server_args: Any | None):
        self.role = role
        self.group = group
        self.server_args = server_args
        self.worker: TpModelWorker  # once it is adopted
        # SGLang keeps image embeddings in one process-wide cache by the image's hash, whichever model made them.
        self._image_cache = MultiModalStaticCache(envs.SGLANG_VLM_CACHE_SIZE_MB.get() << 20)
        self._graph_buffers = GraphBuffers()
        self._stream: torch.cuda.Stream  # once it is built, on a GPU

    def build(self, **kwargs: Any) -> None:
        """Load it beside the model in the scheduler's seat, as a draft worker: SGLang's way to a second model.

        Args:
            kwargs: the arguments of the seat's `TpModelWorker`, of which arguments and rank are replaced.
        """
        with self.loading():
            self.adopt(TpModelWorker(**self.worker_arguments(is_draft_worker=True, **kwargs)))
        if self.worker.device == "cuda":
            self._stream = torch.cuda.Stream()

    def worker_arguments(self, **kwargs: Any) -> dict[str, Any]:
        """`kwargs` of a `TpModelWorker` with this model's arguments and its rank in this model's group."""
        own = {} if self.server_args is None else {"server_args": self.server_args}
        return kwargs | own | {"ps": self.group.ps}

    def adopt(self, worker: TpModelWorker) -> None:
        """Take the worker that holds this model; before anything of its runner is replaced."""
        self.worker = worker
        self._forward = worker.model_runner.forward

    @property
    def runner(self) -> ModelRunner:
        return self.worker.model_runner

    @property
    def model_path(self) -> str:
        return self.runner.model_config.model_path

    @contextmanager
    def loading(self) -> Iterator[None]:
        with self.group.cores(), self.arguments():
            yield

    @contextmanager
    def arguments(self) -> Iterator[None]:
        """While layers, pools and graphs are made they read the process' arguments, group and graph buffers."""
        with self.group.active(), self._graph_buffers.own():
            if self.server_args is None:
                yield
                return
            with get_context().preserve_config():
                get_context().set_server_args(self.server_args)
                yield

    def init_cuda_graphs(self, sms: int | None, *args: Any, **kwargs: Any) -> None:
        """Its worker's, with decode graphs of up to `MOST_ROWS` rows on `sms` SMs; None, or no such streams: on all."""
        stream = None if sms is None else stream_on(sms, self.runner.gpu_id)
        capture = DecodeCudaGraphRunner.capture_one_shape

        def capture_one_shape(runner: DecodeCudaGraphRunner, size: int, *args: Any, **kwargs: Any) -> None:
            if stream is None or size > MOST_ROWS:
                capture(runner, size, *args, **kwargs)
                return
            stream.wait_stream(torch.cuda.current_stream())
            with swapped(runner.backend, "_capture_stream", stream), torch.cuda.stream(stream):
                capture(runner, size, *args, **kwargs)
            torch.cuda.current_stream().wait_stream(stream)

        with swapped(DecodeCudaGraphRunner, "capture_one_shape", capture_one_shape):
            self.worker.init_cuda_graphs(*args, **kwargs)

    def forward(self, forward_batch: ForwardBatch, *args: Any, **kwargs: Any) -> ModelRunnerOutput:
        """Upstream's forward of this model, whatever stands in its runner's place."""
        with self.group.active(), self._own_image_cache():
            return self._forward(forward_batch, *args, **kwargs)

    def logits(self, forward_batch: ForwardBatch) -> torch.Tensor:
        """Run this model on a batch that is the base's too.

        Args:
            forward_batch: read only.

        Returns:
            [rows, head rows] float32 logits of each request's last position; of a decode graph, until its next replay.
        """
        return self.forward(without_logprobs(forward_batch)).logits_output.next_token_logits

    def launch(self, forward_batch: ForwardBatch) -> torch.Tensor:
        """`logits`, on a stream of this model's own: what it returns is there once `join` was called.

        The batch must live until then.
        """
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            logits = self.logits(forward_batch)
        # The seat's model announces to the scheduler that its step's shared tables were read: for this model too. Its
        # graph copies what it reads of them before it is replayed.
        was_read, self.runner.war_fastpath_read_done_event = self.runner.war_fastpath_read_done_event, None
        if was_read is None:
            self.join()
        else:
            torch.cuda.current_stream().wait_event(was_read)
        return logits

    def join(self) -> None:
        """Let the current stream wait for what was launched."""
        torch.cuda.current_stream().wait_stream(self._stream)

    @contextmanager
    def _own_image_cache(self) -> Iterator[None]:
        with swapped(mm_utils, "embedding_cache", self._image_cache):
            yield


class GraphBuffers:
    """What the graphs and kernels of a model read from and write to while they run.

    Upstream shares it between all models of a process, which is right as long as no two of them run at the same time.
    """

    def __init__(self) -> None:
        self._memory_pool: Any = None
        self._logits: Any = None
        self._inputs: dict = {}
        self._workspaces: dict = {}

    @contextmanager
    def own(self) -> Iterator[None]:
        resources = get_resources()
        with (
            swapped(resources, "graph_memory_pool", self._memory_pool),
            swapped(resources, "buffers", self._workspaces),
            swapped(GraphSharedOutput, "_process_shared", self._logits),
            swapped(input_buffers, "_forward_input_buffer_pool", self._inputs),
        ):
            yield
            self._memory_pool, self._logits = resources.graph_memory_pool, GraphSharedOutput._process_shared


def server_args_of(role: Role, config: ProxyConfig, server_args: Any, base_config: Any, tp_size: int) -> Any | None:
    """The arguments that a role's model is built with.

    Args:
        role: which.
        config: both proxies' configuration.
        server_args: the server's.
        base_config: the base's `ModelConfig`; a proxy serves the same context length.
        tp_size: the number of the role's ranks.

    Returns:
        A copy of `server_args` for this model; None where they are its own as they stand.
    """
    if role is Role.BASE:
        if tp_size == server_args.tp_size:
            return None
        arguments = copy.deepcopy(server_args)
        arguments.override(f"proxythinker.{role}", tp_size=tp_size)
        return arguments
    options = config.options(role)
    arguments = draft_server_args_copy(server_args, base_config)
    arguments.override(
        f"proxythinker.{role}",
        tp_size=tp_size,
        speculative_draft_model_path=config.path(role),
        speculative_draft_model_revision=options.revision,
        speculative_draft_model_quantization=options.quantization,
        # Where a draft has no revision of its own SGLang falls back to the base's, which is another repository's.
        revision=options.revision,
        dtype=options.dtype or server_args.dtype,
        load_format=options.load_format or server_args.load_format,
    )
    return arguments


def without_logprobs(forward_batch: ForwardBatch) -> ForwardBatch:
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


def logits_dtype(model_dtypes: set[torch.dtype], server_args: Any) -> torch.dtype:
    """The dtype in which logits of these models lose nothing."""
    if len(model_dtypes) > 1 or server_args.enable_fp32_lm_head:
        return torch.float32
    return next(iter(model_dtypes))


def weight_bytes(runner: ModelRunner) -> int:
    """Bytes of this model's parameters and buffers on this rank."""
    return sum(t.numel() * t.element_size() for t in (*runner.model.parameters(), *runner.model.buffers()))


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
def seat_share(runner: ModelRunner, share: Callable[[int], int]) -> Iterator[None]:
    """Within it the runner's KV pool is sized from `share(free bytes)`; user caps and page size still apply."""
    with _configurator(runner, _Budgeted, share=share):
        yield


@contextmanager
def sized_like(runner: ModelRunner, seat: ModelRunner) -> Iterator[None]:
    """Within it the runner's KV pool gets exactly the seat's slots."""
    with _configurator(runner, _Sized, resolved=seat.memory_pool_config):
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
