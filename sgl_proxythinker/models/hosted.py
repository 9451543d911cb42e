"""One model on this rank in SGLang's terms: how it is built, and the one way to run it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from torch import nn

from sgl_proxythinker.models.chains import as_extend
from sgl_proxythinker.models.graph_buffers import GraphBuffers
from sgl_proxythinker.models.groups import RoleGroup, swapped
from sgl_proxythinker.models.memory import GraphMemory
from sgl_proxythinker.models.picture_embeddings import embed, embedded
from sgl_proxythinker.models.verify_graphs import capturing_chains
from sgl_proxythinker.placement import GIB
from sgl_proxythinker.roles import Role
from sgl_proxythinker.upstream.runtime import (
    ForwardBatch,
    ModelConfig,
    ModelRunner,
    ModelRunnerOutput,
    MultiModalStaticCache,
    TpModelWorker,
    envs,
    get_available_gpu_memory,
    get_context,
    mm_utils,
)
from sgl_proxythinker.upstream.speculation import SpeculativeAlgorithm


class WholeModelWorker(TpModelWorker):
    """SGLang's worker, of a model that is what its checkpoint says.

    A second model of a process is a draft worker to SGLang. Its config would rename several architectures to that of
    their heads for multi-token prediction (Qwen3-MoE's, GLM-4-MoE's and DeepSeek's among them).
    """

    def _init_model_config(self) -> None:
        if self.is_draft_worker:
            self.model_config = ModelConfig.from_server_args(self.server_args, context_length=self.context_length)
        else:
            super()._init_model_config()


class HostedModel:
    """One model of the roster on this rank, and what of the process must be its own while it is worked with.

    Args:
        role: which.
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
        self._sees_with_anothers = False
        self._seen: tuple[ForwardBatch, Any] | None = None  # a batch, and what it is embedded
        self._graph_buffers = GraphBuffers()
        self._graph_bytes = 0
        # Graphs and attention of decode steps, where it also has those of chains: a model that may go without drafts.
        self._decodes: tuple[Any, Any] | None = None
        self._verifies: tuple[Any, Any] | None = None

    def build(self, **kwargs: Any) -> None:
        """Load it beside the primary model, as a draft worker: SGLang's way to a second model.

        Args:
            kwargs: the arguments of the primary's `TpModelWorker`, of which arguments and rank are replaced.
        """
        with self.loading():
            self.adopt(WholeModelWorker(**self.worker_arguments(is_draft_worker=True, **kwargs)))

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

    @property
    def vision_tower(self) -> nn.Module | None:
        """With its merger, under the name that it has in SGLang's Qwen models; None of a model that sees nothing."""
        return getattr(self.runner.model, "visual", None)

    def share_vision_tower(self, owner: HostedModel) -> int:
        """From here on see with an equal tower, which runs on the same ranks, and what it has encoded for its owner.

        Returns:
            Bytes of the tower that this model had.
        """
        spared = _bytes_of(self.runner.model.visual)
        self.runner.model.visual = owner.vision_tower
        self._image_cache, self._sees_with_anothers = owner._image_cache, True
        # Weights and what loads them refer to each other; KV pools are sized by what is free.
        gc.collect()
        return spared

    @property
    def weight_bytes(self) -> int:
        """Bytes of its parameters and buffers on this rank, without those of another model's tower."""
        held = _bytes_of(self.runner.model)
        return held - _bytes_of(self.runner.model.visual) if self._sees_with_anothers else held

    @property
    def graph_memory(self) -> GraphMemory:
        fills_a_cache = self.vision_tower is not None and not self._sees_with_anothers
        image_bytes = self._image_cache.max_size if fills_a_cache else 0
        return GraphMemory(self._graph_bytes, self._graph_buffers.logits_bytes, image_bytes)

    def init_cuda_graphs(self, *args: Any, may_decode: bool = False, **kwargs: Any) -> None:
        """Upstream's, of this model, and what they took. `may_decode`: if it reads chains, it has decode steps too."""
        before = self.free_bytes()
        reads_chains = self.runner.spec_algorithm.is_speculative()
        with capturing_chains(self.runner) if reads_chains else nullcontext():
            # The primary's worker is a subclass that does it for all models of the rank.
            TpModelWorker.init_cuda_graphs(self.worker, *args, **kwargs)
        if reads_chains and may_decode and self.worker.device == "cuda":
            self._verifies = self.runner.decode_cuda_graph_runner, self.runner.attn_backend
            # Graphs read the buffers of the attention that they were captured with.
            self.runner.attn_backend = self.runner._get_attention_backend()
            with swapped(self.runner, "spec_algorithm", SpeculativeAlgorithm.NONE):
                self.runner.init_decode_cuda_graph()
            self._decodes = self.runner.decode_cuda_graph_runner, self.runner.attn_backend
        if self.worker.device == "cuda":
            self._graph_bytes = max(0, before - self.free_bytes() - self._graph_buffers.logits_bytes)

    def read_chains(self, algorithm: str, drafts: int) -> None:
        """From here on attention and graphs of a small model are made for chains of tokens.

        Not earlier: SGLang gives the draft model of an algorithm no KV pool of its own.

        Args:
            algorithm: its name in SGLang's registry.
            drafts: of a chain, which has a token more.
        """
        self.runner.server_args.override(
            f"proxythinker.{self.role}",
            speculative_algorithm=algorithm,
            speculative_eagle_topk=1,
            speculative_num_steps=drafts,
        )
        self.runner.spec_algorithm = SpeculativeAlgorithm.from_string(algorithm)

    def free_bytes(self) -> int:
        """Of the device, with nothing held back for reuse."""
        return int(get_available_gpu_memory(self.worker.device, self.runner.gpu_id) * GIB)

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

    def see(self, forward_batch: ForwardBatch) -> None:
        """Embed the ids and pictures of a prefill, for the `forward` of the same batch that comes next."""
        with self._running():
            self._seen = forward_batch, embed(self.runner.model, forward_batch)

    def forward(self, forward_batch: ForwardBatch, *args: Any, **kwargs: Any) -> ModelRunnerOutput:
        """Run this model, whatever stands in the place of its runner's `forward`.

        Of a decode graph the logits in the output are there until its next replay.
        """
        seen, self._seen = self._seen, None
        is_verify = forward_batch.forward_mode.is_target_verify()
        if own := self._verifies if is_verify else self._decodes:
            self.runner.decode_cuda_graph_runner, self.runner.attn_backend = own
        with ExitStack() as stack:
            stack.enter_context(self._running())
            if seen and seen[0] is forward_batch:
                stack.enter_context(embedded(seen[1]))
            is_on_cpu = is_verify and self.worker.device == "cpu"
            return self._forward(as_extend(forward_batch) if is_on_cpu else forward_batch, *args, **kwargs)

    @contextmanager
    def _running(self) -> Iterator[None]:
        with self.group.active(), swapped(mm_utils, "embedding_cache", self._image_cache):
            yield


def _bytes_of(module: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
