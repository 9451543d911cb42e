"""Three models behind the interface of SGLang's worker.

The scheduler calls this as it calls any `TpModelWorker`: weights at construction, then `alloc_memory_pool`,
`init_attention_backends`, `init_cuda_graphs`, then `forward_batch_generation` per batch. Everything above it (radix
tree, chunked prefill, overlap, retraction, streaming) and below the fused row (SGLang's sampler) is upstream's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from sgl_proxythinker.broken_rows import attach_verdict
from sgl_proxythinker.compatibility import known_ids
from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.fusion import fuse_logits, neutralize_broken_rows_
from sgl_proxythinker.memory import KVBudget, plan_table
from sgl_proxythinker.roles import PROXIES, Role
from sgl_proxythinker.runners import ProxyModel, base_share, kv_bytes_per_token, sized_like, weight_bytes
from sgl_proxythinker.strength import Strength, read_strength
from sgl_proxythinker.trace import attach_evidence, rows_that_ask, trace_tokens
from sgl_proxythinker.upstream.runtime import ForwardBatch, TpModelWorker

logger = logging.getLogger(__name__)


class ProxyWorker(TpModelWorker):
    """SGLang's worker for the base model, which also runs the two proxies and fuses.

    Args:
        config: the proxies.
        kwargs: `TpModelWorker`'s own arguments.
    """

    def __init__(self, config: ProxyConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.vocab_size = known_ids(self.tokenizer)
        self.proxies = {role: ProxyModel(role, config, self.model_runner.model_config, **kwargs) for role in PROXIES}
        self._strengths = StrengthTensors(self.device)
        # Everything that reads logits (sampling, delayed sampling under a grammar, prefill-only requests) takes them
        # from what this method of the base's runner returns.
        self._base_forward = self.model_runner.forward
        self.model_runner.forward = self._guided_forward

    def describe(self) -> dict[str, Any]:
        """The `proxy` field of the handshake: this worker's models, read off the models themselves."""
        return self.config.describe() | {str(role): proxy.model_path for role, proxy in self.proxies.items()}

    def alloc_memory_pool(self, *args: Any, **kwargs: Any) -> None:
        """Three KV pools with the same slots: as many tokens as the free bytes hold in all three."""
        runners = {Role.BASE: self.model_runner} | {role: proxy.runner for role, proxy in self.proxies.items()}
        token_bytes = {role: kv_bytes_per_token(runner) for role, runner in runners.items()}
        with base_share(self.model_runner, lambda free: KVBudget(free, token_bytes).share_bytes(Role.BASE)):
            super().alloc_memory_pool(*args, **kwargs)
        for proxy in self.proxies.values():
            with sized_like(proxy.runner, self.model_runner):
                proxy.worker.alloc_memory_pool(None, *self.get_memory_pool())
        if self.ps.tp_rank == 0:
            weights = {role: weight_bytes(runner) for role, runner in runners.items()}
            table = plan_table(weights, token_bytes, self.model_runner.max_total_num_tokens)
            logger.info("proxythinker: memory of rank 0\n%s", table)

    def init_attention_backends(self) -> None:
        super().init_attention_backends()
        for proxy in self.proxies.values():
            with proxy.arguments():
                proxy.worker.init_attention_backends()

    def init_cuda_graphs(self, *args: Any, **kwargs: Any) -> None:
        super().init_cuda_graphs(*args, **kwargs)
        for proxy in self.proxies.values():
            with proxy.arguments():
                proxy.worker.init_cuda_graphs(*args, **kwargs)

    def forward_batch_generation(self, batch: Any, forward_batch: ForwardBatch | None = None, **kwargs: Any) -> Any:
        """One step of all three models and one sample of the fused row, per request of `batch`."""
        if batch is None:
            raise RuntimeError("a forward without its ScheduleBatch carries no request's strength")
        asked = [req.sampling_params.custom_params for req in batch.reqs]
        strengths = [read_strength(params, self.config.alpha) for params in asked]
        # Answers are sent by the first rank alone.
        traced = rows_that_ask(asked) if self.ps.tp_rank == 0 else []
        with self._strengths.step(strengths, traced):
            result = super().forward_batch_generation(batch, forward_batch, **kwargs)
        if traced:
            trace_tokens(result)
        return result

    def _guided_forward(self, forward_batch: ForwardBatch, *args: Any, **kwargs: Any) -> Any:
        """The base's forward, with the fused logits in place of the base's own.

        The proxies run first: a decode graph of another model with the same vocabulary writes its logits into the
        same shared buffer, and the scheduler waits for the event that the base's runner records last.
        """
        strengths = self._strengths.get()
        expert, amateur = (proxy.logits(forward_batch, self.vocab_size) for proxy in self.proxies.values())
        output = self._base_forward(forward_batch, *args, **kwargs)
        logits_output = output.logits_output
        fused = fuse_logits(
            logits_output.next_token_logits, expert, amateur, strengths.expert, strengths.amateur, self.vocab_size,
            one_alpha=strengths.one_alpha, all_guided=strengths.all_guided,
        )  # fmt: skip
        attach_verdict(logits_output, neutralize_broken_rows_(fused, self.vocab_size))
        if strengths.traced is not None:
            base = logits_output.next_token_logits
            attach_evidence(logits_output, base, expert, amateur, fused, strengths.traced, self.vocab_size)
        logits_output.next_token_logits = fused
        return output


class StepStrengths(NamedTuple):
    """The weights of a step's rows, and what the host knows about them without asking the device."""

    expert: torch.Tensor  # [B] float32
    amateur: torch.Tensor  # [B] float32
    one_alpha: bool  # in every row both weights are equal
    all_guided: bool  # in no row both weights are 0
    traced: torch.Tensor | None  # [R] int64 rows whose request asks for a trace; None: no row does


class StrengthTensors:
    """Holds the step's weights on the device; copied there only when they differ from the last step's."""

    def __init__(self, device: str):
        self._device = device
        self._asked: tuple[list[Strength], list[int]] | None = None
        self._step: StepStrengths | None = None
        self._in_step = False

    @contextmanager
    def step(self, strengths: list[Strength], traced: list[int]) -> Iterator[None]:
        """While it is open, `get` gives the weights of `strengths`, in the batch's order, and the `traced` rows."""
        if (strengths, traced) != self._asked:
            expert, amateur = self._on_device(strengths, torch.float32).T.contiguous()
            one_alpha = all(row.expert == row.amateur for row in strengths)
            all_guided = not any(row.is_base_alone for row in strengths)
            rows = self._on_device(traced, torch.int64) if traced else None
            self._asked = strengths, traced
            self._step = StepStrengths(expert, amateur, one_alpha, all_guided, rows)
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False

    def _on_device(self, values: list, dtype: torch.dtype) -> torch.Tensor:
        pin = torch.device(self._device).type == "cuda"
        return torch.tensor(values, dtype=dtype, pin_memory=pin).to(self._device, non_blocking=True)

    def get(self) -> StepStrengths:
        if not self._in_step:
            raise RuntimeError("a forward outside of forward_batch_generation has no strength")
        return self._step
