"""Three models behind the interface of SGLang's worker.

The scheduler calls this as it calls any `TpModelWorker`: weights at construction, then `alloc_memory_pool`,
`init_attention_backends`, `init_cuda_graphs`, then `forward_batch_generation` per batch. Everything above it (radix
tree, chunked prefill, overlap, retraction, streaming) and below the fused row (SGLang's sampler) is upstream's.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.guidance import Guidance
from sgl_proxythinker.models.groups import join_world, joined_world, make_groups
from sgl_proxythinker.models.hosted import (
    HostedModel,
    kv_bytes_per_token,
    logits_dtype,
    seat_share,
    server_args_of,
    sized_like,
    weight_bytes,
    without_logprobs,
)
from sgl_proxythinker.models.memory import KVBudget, ModelMemory, plan_table
from sgl_proxythinker.models.sm_partition import sms_by_weights
from sgl_proxythinker.placement import Placement
from sgl_proxythinker.roles import PROXIES, Role
from sgl_proxythinker.step.batch_fields import undividable
from sgl_proxythinker.step.exchange import LogitsExchange, least_of_all, one_token_for_all
from sgl_proxythinker.step.fusion import fuse_logits
from sgl_proxythinker.step.logits import FusedLogits, ShardedLogits
from sgl_proxythinker.step.non_finite_rows import attach_verdict
from sgl_proxythinker.step.plan import Step, StepInputs
from sgl_proxythinker.step.rows import select_rows
from sgl_proxythinker.step.trace import attach_evidence, trace_tokens
from sgl_proxythinker.upstream.runtime import (
    ForwardBatch,
    LogitsProcessorOutput,
    ModelConfig,
    ModelRunnerOutput,
    TpModelWorker,
    get_tp_group,
)
from sgl_proxythinker.vocabulary import known_ids

logger = logging.getLogger(__name__)


class ProxyWorker(TpModelWorker):
    """SGLang's worker for one model of this rank, which also runs the others on this rank, and fuses.

    The model in the seat is the base; on ranks without the base it is the proxy that they run.

    Args:
        config: the proxies.
        placement: which ranks run what.
        kwargs: `TpModelWorker`'s own arguments, as for a base on all ranks.
    """

    def __init__(self, config: ProxyConfig, placement: Placement, **kwargs: Any):
        server_args, world = kwargs["server_args"], kwargs["ps"]
        self.config = config
        self.placement = placement
        self.rank = world.tp_rank
        base_config = ModelConfig.from_server_args(server_args)
        join_world(server_args, world, kwargs["nccl_port"], base_config)
        groups = make_groups(placement, world)

        def host(role: Role) -> HostedModel:
            tp_size = groups[role].ps.tp_size
            return HostedModel(role, groups[role], server_args_of(role, config, server_args, base_config, tp_size))

        seat, *others = groups
        self._seat = host(seat)
        with self._seat.loading(), joined_world():
            super().__init__(**self._seat.worker_arguments(**kwargs, is_draft_worker=seat in PROXIES))
        self._seat.adopt(self)
        # Arguments are copied now: loading the seat's model may have settled some of them.
        self._beside = [host(role) for role in others]
        for model in self._beside:
            model.build(**kwargs)
        self._inputs = StepInputs(self.device)
        self._has_streams = config.streams and self.device == "cuda"
        self._warned_of: set[str] = set()
        # Over all ranks: schedulers share requests in it too.
        self._world = get_tp_group()
        # The first rank has the base, and the one tokenizer.
        self.vocab_size = self._world.broadcast_object(known_ids(self.tokenizer) if self.rank == 0 else None)
        self._width = base_config.vocab_size
        # Everything that reads logits (sampling, delayed sampling under a grammar, prefill-only requests) takes them
        # from what this method of the seat's runner returns.
        self.model_runner.forward = self._guided_forward
        if placement.world_size > 1:
            self._sample = self.model_runner.sample
            self.model_runner.sample = self._sample_once

    @property
    def hosted(self) -> dict[Role, HostedModel]:
        return {model.role: model for model in (self._seat, *self._beside)}

    def describe(self) -> dict[str, Any]:
        """The `proxy` field of the handshake: what this rank runs, read off the models themselves."""
        hosted = self.hosted
        return self.config.describe_rank(hosted) | {
            str(role): model.model_path for role, model in hosted.items() if role in PROXIES
        }

    def alloc_memory_pool(self, *args: Any, **kwargs: Any) -> None:
        """KV pools with the same slots on all ranks: as many tokens as the free bytes of each hold for its models."""
        token_bytes = {}
        for role, model in self.hosted.items():
            with model.arguments():
                token_bytes[role] = kv_bytes_per_token(model.runner)

        def share(free_bytes: int) -> int:
            tokens = least_of_all(KVBudget(free_bytes, token_bytes).tokens, self._world)
            return tokens * token_bytes[self._seat.role]

        with self._seat.arguments(), seat_share(self.model_runner, share):
            super().alloc_memory_pool(*args, **kwargs)
        for model in self._beside:
            with model.arguments(), sized_like(model.runner, self.model_runner):
                model.worker.alloc_memory_pool(None, *self.get_memory_pool())
        self._make_exchange()
        self._log_plan(token_bytes)

    def init_attention_backends(self) -> None:
        with self._seat.arguments():
            super().init_attention_backends()
        for model in self._beside:
            with model.arguments():
                model.worker.init_attention_backends()

    def init_cuda_graphs(self, *args: Any, **kwargs: Any) -> None:
        with self._seat.arguments():
            super().init_cuda_graphs(*args, **kwargs)
        sms = self._sms_beside_base()
        for model in self._beside:
            with model.arguments():
                model.init_cuda_graphs(sms, *args, **kwargs)
        self._warm_up()

    def _sms_beside_base(self) -> int | None:
        """SMs for the small models beside the base, together; None where they decode on the whole GPU.

        A kernel whose blocks wait for others needs room for all of them. All-reduces of two models that come in another
        order on another rank need it for both, and some quantized products (Marlin's) start a block for each SM of the
        GPU, whether it may use them or not.
        """
        has_collectives = any(model.group.ps.tp_size > 1 for model in self._beside)
        has_collectives_of_two = len(self._beside) > 1 and has_collectives
        is_quantized = any(model.runner.model_config.quantization for model in self._beside)
        if not self._has_streams or not self._beside or has_collectives_of_two or is_quantized:
            return None
        sm_count = torch.cuda.get_device_properties(self.gpu_id).multi_processor_count
        theirs = sum(weight_bytes(model.runner) for model in self._beside)
        return sms_by_weights(theirs, weight_bytes(self.model_runner), sm_count, has_collectives)

    def forward_batch_generation(self, batch: Any, forward_batch: ForwardBatch | None = None, **kwargs: Any) -> Any:
        """One step of the models on this rank and one sample of the fused row, per request of `batch`."""
        if batch is None:
            raise RuntimeError("a forward without its ScheduleBatch carries no request's strength")
        # A rank without the base takes prompt logprobs, which its scheduler expects and nobody reads, from its proxy.
        is_shared_out = not self.placement.is_everywhere(Role.BASE)
        for_all_rows = batch.return_logprob and batch.forward_mode.is_extend() and is_shared_out
        with self._inputs.of(batch.reqs, for_all_rows) as step:
            result = super().forward_batch_generation(batch, forward_batch, **kwargs)
        # Answers are sent by the first rank alone.
        if step.traced and self.rank == 0:
            trace_tokens(result)
        return result

    def _guided_forward(self, forward_batch: ForwardBatch, *args: Any, **kwargs: Any) -> ModelRunnerOutput:
        """The seat's forward, with the fused logits of three models in place of its own.

        The seat's model runs last: the scheduler waits for the event that its runner records.
        """
        step = self._dividable(forward_batch)
        ran = step.guided.index
        batch = forward_batch if len(ran) == step.size else select_rows(forward_batch, step.guided)
        rows = {Role.BASE: step.size} | (dict.fromkeys(PROXIES, len(ran)) if ran else {})
        # Prefill fills a GPU by itself; the small kernels of a decode step don't.
        on_own_streams = self._has_streams and forward_batch.forward_mode.is_decode()
        beside = self._beside if ran else []
        logits = {model.role: model.launch(batch) if on_own_streams else model.logits(batch) for model in beside}
        output = self._run_seat(forward_batch, batch if ran else None, *args, **kwargs)
        logits_output = output.logits_output
        if self._seat.role in rows:
            logits[self._seat.role] = logits_output.next_token_logits
        if on_own_streams:
            for model in beside:
                model.join()
        gathered, fused = self._meet(logits, rows, step)
        attach_verdict(logits_output, fused.sound)
        if step.traced and self.rank == 0:
            weights = torch.stack([step.expert, step.amateur])
            attach_evidence(logits_output, gathered, fused.logits, weights, step.traced, self.vocab_size)
        logits_output.next_token_logits = fused.logits
        return output

    def _dividable(self, forward_batch: ForwardBatch) -> Step:
        """The current step; with the small models run for all of its rows where their rows can't be told apart.

        Every rank sees the same fields and decides the same.
        """
        step = self._inputs.current
        if len(step.guided.index) not in (0, step.size) and (names := undividable(forward_batch)):
            if not self._warned_of.issuperset(names):
                self._warned_of.update(names)
                logger.warning(
                    "proxythinker: the small models run for rows at alpha 0 too in batches with %s, of which it is not "
                    "known what belongs to which row: right, but slower.",
                    ", ".join(names),
                )
            step = self._inputs.for_all_rows()
        return step

    def _run_seat(
        self, forward_batch: ForwardBatch, guided: ForwardBatch | None, *args: Any, **kwargs: Any
    ) -> ModelRunnerOutput:
        """The base on all rows; where a proxy has the seat, that proxy on the `guided` ones, if there are any."""
        if self._seat.role is Role.BASE:
            return self._seat.forward(forward_batch, *args, **kwargs)
        if guided is None:
            return ModelRunnerOutput(LogitsProcessorOutput(next_token_logits=None), can_run_graph=False)
        return self._seat.forward(guided if guided is forward_batch else without_logprobs(guided))

    def _meet(
        self, logits: dict[Role, torch.Tensor], rows: dict[Role, int], step: Step
    ) -> tuple[dict[Role, ShardedLogits], FusedLogits]:
        gathered = self._exchange.gather(logits, rows)
        fused = fuse_logits(
            gathered[Role.BASE], gathered.get(Role.EXPERT), gathered.get(Role.AMATEUR), step.expert, step.amateur,
            step.guided.places, self.vocab_size, self._width,
        )  # fmt: skip
        return gathered, fused

    def _warm_up(self) -> None:
        """Compile the kernel and connect the ranks now: in the first step a second would pass for it."""
        logits = {
            role: torch.zeros(1, model.runner.model_config.vocab_size, device=self.device)
            for role, model in self.hosted.items()
        }
        for guided in (True, False):
            step = self._inputs.on_device([Guidance.of(1.0)], [guided])
            roles = Role if guided else [Role.BASE]
            here = {role: rows for role, rows in logits.items() if role in roles}
            self._meet(here, dict.fromkeys(roles, 1), step)

    def _sample_once(self, logits_output: LogitsProcessorOutput, forward_batch: ForwardBatch) -> torch.Tensor:
        return one_token_for_all(self._sample(logits_output, forward_batch), self._world)

    def _make_exchange(self) -> None:
        here = {model.runner.dtype for model in self.hosted.values()}
        everywhere = set().union(*self._world.all_gather_object(here))
        dtype = logits_dtype(everywhere, self.server_args)
        self._exchange = LogitsExchange(self.placement, self._world, self.vocab_size, dtype, self.device)

    def _log_plan(self, token_bytes: dict[Role, int]) -> None:
        memory = {
            role: ModelMemory(weight_bytes(model.runner), token_bytes[role]) for role, model in self.hosted.items()
        }
        ranks = self._world.all_gather_object(memory)
        if self.rank == 0:
            table = plan_table(ranks, self.model_runner.max_total_num_tokens)
            logger.info("proxythinker: placement %s; memory:\n%s", self.placement, table)
