"""The models of a rank behind the interface of SGLang's worker.

The scheduler calls this as it calls any `TpModelWorker`: weights at construction, then `alloc_memory_pool`,
`init_attention_backends`, `init_cuda_graphs`, then `forward_batch_generation` per batch. Everything above it (radix
tree, chunked prefill, overlap, retraction, streaming) and below the fused row (SGLang's sampler) is upstream's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.guards.token_bytes import token_bytes
from sgl_proxythinker.guidance import Guidance
from sgl_proxythinker.laws import Divergence, Law, Marker
from sgl_proxythinker.models.arguments import server_args_of
from sgl_proxythinker.models.graph_capture import captured_on
from sgl_proxythinker.models.groups import join_world, joined_world, make_groups
from sgl_proxythinker.models.hosted import HostedModel, WholeModelWorker
from sgl_proxythinker.models.kv_pools import kv_bytes_per_token, primary_share, sized_like
from sgl_proxythinker.models.memory import KVBudget, ModelMemory, RankMemory, graph_table, plan_table
from sgl_proxythinker.models.vision_towers import share_equal_towers
from sgl_proxythinker.placement import Placement
from sgl_proxythinker.roles import BASE, DRAFTER, Role
from sgl_proxythinker.step.batch_fields import undividable
from sgl_proxythinker.step.ensemble import Ensemble
from sgl_proxythinker.step.fusion import fuse_logits
from sgl_proxythinker.step.law_strengths import law_weights
from sgl_proxythinker.step.logits import FusedLogits, ShardedLogits, WeightedPair
from sgl_proxythinker.step.logits_gather import LogitsGather, least_of_all, logits_dtype, one_token_for_all
from sgl_proxythinker.step.marked_texts import MarkedChains
from sgl_proxythinker.step.markers import WrittenTexts
from sgl_proxythinker.step.non_finite_rows import attach_verdict
from sgl_proxythinker.step.plan import Step, StepInputs
from sgl_proxythinker.step.plausible import attach_plausible, cut_implausible
from sgl_proxythinker.step.row_memory import largest_batch, row_memory
from sgl_proxythinker.step.trace import attach_evidence, trace_tokens
from sgl_proxythinker.upstream.runtime import (
    ForwardBatch,
    LogitsProcessorOutput,
    ModelConfig,
    ModelRunnerOutput,
    get_tp_group,
)
from sgl_proxythinker.vocabulary import known_ids

logger = logging.getLogger(__name__)


class VerifiedRows(NamedTuple):
    """The fused rows of several tokens of every request, N rows of B requests."""

    result: Any  # SGLang's `GenerationBatchResult`; its `logits_output` has the rows
    sound: torch.Tensor  # [N] bool
    step: Step
    marked: MarkedChains | None  # of the requests whose law has a marker


class ProxyWorker(WholeModelWorker):
    """SGLang's worker for one model of this rank, which also runs the others on this rank, and fuses.

    The primary model is the base; on ranks without the base it is the small model that they run.

    Args:
        config: the small models.
        placement: which ranks run what.
        kwargs: `TpModelWorker`'s own arguments, as for a base on all ranks.
    """

    def __init__(self, config: ProxyConfig, placement: Placement, **kwargs: Any):
        server_args, world = kwargs["server_args"], kwargs["ps"]
        self.config = config
        self.placement = placement
        self.rank = world.tp_rank
        self._algorithm = server_args.speculative_algorithm  # of the server; a small model's arguments name none
        base_config = ModelConfig.from_server_args(server_args)
        join_world(server_args, world, kwargs["nccl_port"], base_config)
        groups = make_groups(placement, world)

        def host(role: Role) -> HostedModel:
            spec, tp_size = config.small_models.get(role), groups[role].ps.tp_size
            return HostedModel(role, groups[role], server_args_of(role, spec, server_args, base_config, tp_size))

        primary_role, *others = groups
        primary = host(primary_role)
        with primary.loading(), joined_world():
            super().__init__(**primary.worker_arguments(**kwargs, is_draft_worker=primary_role != BASE))
        primary.adopt(self)
        # SGLang samples later than it computes where a grammar is read meanwhile, but not under speculation; it asks
        # the primary's arguments, and those of a small model name no algorithm.
        self.enable_spec = self._algorithm is not None
        # Arguments are copied now: loading the primary's model may have settled some of them.
        colocated = [host(role) for role in others]
        for model in colocated:
            model.build(**kwargs)
        # Over all ranks: schedulers share requests in it too.
        self.world = get_tp_group()
        # The first rank has the base, and the one tokenizer.
        self.vocab_size = self.world.broadcast_object(known_ids(self.tokenizer) if self.rank == 0 else None)
        # Columns of fused rows, and of the masks of grammars: the base's head, also on ranks without the base.
        self.head_rows = base_config.vocab_size
        has_streams = config.streams and self.device == "cuda"
        dtypes = set().union(*self.world.all_gather_object({model.runner.dtype for model in (primary, *colocated)}))
        self._travelling_dtype = logits_dtype(dtypes, self.server_args)
        gather = LogitsGather(placement, self.world, self.vocab_size, self._travelling_dtype, self.device)
        self.ensemble = Ensemble(primary, colocated, gather, has_streams)
        share_equal_towers(self.ensemble.models, placement, self.world)
        self.inputs = StepInputs(tuple(config.small_models), self.device)
        self._given: Mapping[Role, torch.Tensor] = {}
        self._sound: torch.Tensor  # [N] bool of the last fused rows
        self.written: WrittenTexts  # once there are slots
        self._past_marker: torch.Tensor | None = None  # [N] bool of the step that is under way
        self._warned_of: set[str] = set()
        # Everything that reads logits (sampling, delayed sampling under a grammar, prefill-only requests) takes them
        # from what this method of the primary's runner returns.
        self.model_runner.forward = self._guided_forward
        # Both of its ways, of sampling and of scoring without it, write biases and masks into the rows by this method.
        self._write_biases = self.model_runner._preprocess_logits
        self.model_runner._preprocess_logits = self._shape_rows
        if placement.world_size > 1:
            self._sample = self.model_runner.sample
            self.model_runner.sample = self._sample_once

    def describe(self) -> dict[str, Any]:
        """The `proxy` field of the handshake: what this rank runs, read off the models themselves."""
        models = self.ensemble.models
        return self.config.describe(
            {role: models[role].model_path if role in models else None for role in self.config.small_models}
        )

    def alloc_memory_pool(self, *args: Any, **kwargs: Any) -> None:
        """KV pools with the same slots on all ranks: as many tokens as the free bytes of each hold for its models."""
        primary, token_bytes = self.ensemble.primary, {}
        for role, model in self.ensemble.models.items():
            with model.arguments():
                token_bytes[role] = kv_bytes_per_token(model.runner)

        def share(free_bytes: int) -> int:
            tokens = least_of_all(KVBudget(free_bytes, token_bytes).tokens, self.world)
            return tokens * token_bytes[primary.role]

        with primary.arguments(), primary_share(self.model_runner, share):
            super().alloc_memory_pool(*args, **kwargs)
        for model in self.ensemble.colocated:
            with model.arguments(), sized_like(model.runner, self.model_runner):
                model.worker.alloc_memory_pool(None, *self.get_memory_pool())
        self.written = self._no_texts()
        self._log_plan(token_bytes)

    def get_worker_info(self) -> tuple:
        """Upstream's, with room in the pool for the slots that a cycle of speculation reserves."""
        slots, *before, most, most_input, seed, device, stream, rows, width, pool = super().get_worker_info()
        most = min(most, slots - 1 - self._reserved_slots())
        page = self.server_args.page_size
        is_tight = self.device == "cuda" or (page > 1 and not self.placement.is_everywhere(BASE))
        if self.config.drafts and is_tight:
            # A row of the page tables of a verify's graph is as long as the context, and chains are written past it. So
            # are whole pages of slots, for which the tables of requests have no room on ranks without the base.
            most = min(most, self.model_config.context_len - page - self._reserved_slots())
        return slots, *before, most, min(most_input, most - 5), seed, device, stream, rows, width, pool

    def init_attention_backends(self) -> None:
        if self.config.drafts:
            for role, model in self.ensemble.models.items():
                if role not in (BASE, DRAFTER):
                    model.read_chains(self._algorithm, self.config.drafts)
        with self.ensemble.primary.arguments():
            super().init_attention_backends()
        for model in self.ensemble.colocated:
            with model.arguments():
                model.worker.init_attention_backends()

    def init_cuda_graphs(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= {"may_decode": self.config.chooses_drafts}
        with self.ensemble.primary.arguments():
            self.ensemble.primary.init_cuda_graphs(*args, **kwargs)
        # A drafter's steps are waited for, one after the other, before the base runs.
        waited_for = {DRAFTER} if self.config.drafts else set()
        beside = [model for model in self.ensemble.colocated if model.role not in waited_for]
        sms = self.ensemble.sms_beside_base({model.role for model in beside})
        for model in self.ensemble.colocated:
            with model.arguments(), captured_on(sms if model in beside else None, self.gpu_id):
                model.init_cuda_graphs(*args, **kwargs)
        self._warm_up()
        self._log_what_is_left()

    def forward_batch_generation(self, batch: Any, forward_batch: ForwardBatch | None = None, **kwargs: Any) -> Any:
        """One step of the models on this rank and one sample of the fused row, per request of `batch`."""
        if batch is None:
            raise RuntimeError("a forward without its ScheduleBatch carries no request's strength")
        # A rank without the base takes prompt logprobs, which its scheduler expects and nobody reads, from its own
        # model.
        is_shared_out = not self.placement.is_everywhere(BASE)
        for_all_requests = batch.return_logprob and batch.forward_mode.is_extend() and is_shared_out
        with self.inputs.of(batch.reqs, for_all_requests) as step:
            self._past_marker = None if step.marked is None else self.written.read(step.marked, batch)
            result = super().forward_batch_generation(batch, forward_batch, **kwargs)
        # Answers are sent by the first rank alone.
        if step.traced and self.rank == 0:
            trace_tokens(result)
        return result

    def verify(
        self, reqs: Sequence[Any], forward_batch: ForwardBatch, given: Mapping[Role, torch.Tensor], each: int
    ) -> VerifiedRows:
        """Let the models read some tokens of every request at once, and sample none.

        Args:
            reqs: SGLang's `Req` of each of B requests.
            forward_batch: of the primary model, with `each` tokens of each request.
            given: raw logits of models that have read them: `each` rows of each request that the model reads.
            each: how many.
        """
        with self.inputs.of(reqs, False, each) as step:
            marked = None
            if step.marked is not None:
                chains = forward_batch.input_ids.view(len(reqs), each)
                marked = self.written.along(step.marked, forward_batch.req_pool_indices, chains)
            self._past_marker = None if marked is None else marked.past_marker.flatten()
            self._given = given
            try:
                result = super().forward_batch_generation(None, forward_batch, is_verify=True)
            finally:
                self._given = {}
        return VerifiedRows(result, self._sound, step, marked)

    def _guided_forward(self, forward_batch: ForwardBatch, *args: Any, **kwargs: Any) -> ModelRunnerOutput:
        """The primary's forward, with the fused logits of all models in place of its own."""
        step, given = self._dividable(forward_batch), self._given
        if step is not self.inputs.current:
            runs = self.inputs.current.runs
            self.ensemble.wait_for(given)
            given = {role: rows[runs[role].rows_on_device.clamp(min=0)] for role, rows in given.items()}
        output, logits = self.ensemble.forward(step, forward_batch, given, *args, **kwargs)
        pairs, fused = self._fuse(logits, step, partial(_tokens_read, forward_batch), self._past_marker)
        self._sound = fused.sound
        self._attach(output.logits_output, step, logits, pairs, fused)
        output.logits_output.next_token_logits = fused.logits
        return output

    def _dividable(self, forward_batch: ForwardBatch) -> Step:
        """The current step; with the small models run for all requests where these can't be told apart.

        Every rank sees the same fields and decides the same.
        """
        step = self.inputs.current
        is_divided = any(len(requests) != step.size for requests in step.runs.values())
        if is_divided and (names := undividable(forward_batch)):
            if not self._warned_of.issuperset(names):
                self._warned_of.update(names)
                logger.warning(
                    "proxythinker: all small models run for all rows in batches with %s, of which it is not "
                    "known what belongs to which row: right, but slower. A flag or a field of requests brings them: "
                    "leave it out where speed counts.",
                    ", ".join(names),
                )
            step = self.inputs.for_all_requests()
        return step

    def _fuse(
        self,
        logits: dict[Role, ShardedLogits],
        step: Step,
        lengths: Callable[[], torch.Tensor],
        past_marker: torch.Tensor | None = None,
    ) -> tuple[list[WeightedPair], FusedLogits]:
        pairs = []
        for (plus, minus), weights, laws in zip(step.pairs, step.weights, step.laws, strict=True):
            if laws is not None:
                weights = law_weights(laws, weights, lengths(), logits, self.vocab_size, past_marker)
            of_plus, of_minus = step.runs[plus].rows_on_device, step.runs[minus].rows_on_device
            pairs.append(WeightedPair(logits[plus], logits[minus], weights, of_plus, of_minus, step.clips))
        return pairs, fuse_logits(logits[BASE], pairs, len(step.owner), self.vocab_size, self.head_rows)

    def _attach(
        self,
        logits_output: LogitsProcessorOutput,
        step: Step,
        logits: dict[Role, ShardedLogits],
        pairs: list[WeightedPair],
        fused: FusedLogits,
    ) -> None:
        """What of the step its requests will be told, on its way beside the fused rows."""
        attach_verdict(logits_output, fused.sound, step.owner)
        if step.plausible is not None:
            attach_plausible(logits_output, step.plausible, logits[BASE], self.vocab_size)
        if step.traced and self.rank == 0:
            steered = dict(zip(step.pairs, pairs, strict=True))
            attach_evidence(logits_output, logits, steered, fused.logits, step.traced, step.owner, self.vocab_size)

    def _warm_up(self) -> None:
        """Compile the kernels and connect the ranks now: in the first step a second would pass for it."""
        logits = {
            role: torch.zeros(1, model.runner.model_config.vocab_size, device=self.device)
            for role, model in self.ensemble.models.items()
        }
        law = Law(divergence=Divergence(1.0, 0.0, 1.0, 0), entropy_above=0.0)
        every_law = Guidance.of(1.0, law=law, clip=1.0, plausible=0.5, trace=True)
        # A batch in which a request waits for a marker has a kernel of its own.
        marked = Guidance.of(1.0, law=Law(after=Marker("a", 0.0)))
        # A second pair is another kernel: it adds to what the first one wrote.
        several = Guidance.of_several(dict.fromkeys(list(self.config.pairs)[:2], 1.0), self.config.pairs)
        one = torch.ones(1, dtype=torch.int64, device=self.device)
        for guidance in (Guidance.of(1.0), Guidance(), every_law, marked, several):
            step = self.inputs.on_device([guidance], [guidance.reads], prompt_tokens=[0])
            here = {role: rows for role, rows in logits.items() if role in guidance.reads}
            past_marker = None if step.marked is None else self.written.rehearse(step.marked)
            said = self.ensemble.gather(here, step)
            pairs, fused = self._fuse(said, step, lambda: one, past_marker)
            output = SimpleNamespace(next_token_logits=fused.logits)
            # With and without a bias, which the cut of implausible ids reads too.
            for logit_bias in (None, torch.zeros(1, self.head_rows, device=self.device)):
                self._attach(output, step, said, pairs, fused)
                cut_implausible(output, logit_bias)

    def _shape_rows(self, logits_output: LogitsProcessorOutput, sampling_info: Any) -> None:
        """On every rank: with a grammar SGLang's sampler takes the smallest of their tokens."""
        self._write_biases(logits_output, sampling_info)
        cut_implausible(logits_output, sampling_info.logit_bias)

    def _sample_once(self, logits_output: LogitsProcessorOutput, forward_batch: ForwardBatch) -> torch.Tensor:
        return one_token_for_all(self._sample(logits_output, forward_batch), self.world)

    def _no_texts(self) -> WrittenTexts:
        of_first = [token_bytes(self.tokenizer, token) for token in range(self.vocab_size)] if self.rank == 0 else None
        slots = len(self.model_runner.req_to_token_pool.req_to_token)
        return WrittenTexts(self.world.broadcast_object(of_first), slots, self.device)

    @property
    def _speaks_here(self) -> bool:
        """Whether this rank tells the log of its host what is known of all ranks."""
        return self.rank == self.placement.ranks_of_node(self.placement.node_of(self.rank))[0]

    def _reserved_slots(self) -> int:
        """Of a running request, past its tokens: a chain, and that of the cycle before it, which is under way."""
        return 2 * (self.config.drafts + 1) if self.config.drafts else 0

    def _log_what_is_left(self) -> None:
        running, models = self.model_runner.max_running_requests, self.ensemble.models
        batch = largest_batch(self.server_args, running)
        rows = row_memory(batch, self.head_rows, self.config.drafts, placement=self.placement, rank=self.rank,
                          dtype=self._travelling_dtype, by_kernels=self.device == "cuda")  # fmt: skip
        beside = {role: model.graph_memory for role, model in models.items()}
        ranks = self.world.all_gather_object(RankMemory(beside, rows, self.ensemble.primary.free_bytes()))
        if self._speaks_here:
            logger.info(
                "proxythinker: beside weights and KV, for %d of the %d requests that may run at once:\n%s",
                batch, running, graph_table(ranks),
            )  # fmt: skip
            if self.config.drafts:
                logger.info(
                    "proxythinker: chains of %d tokens; each running request has %d slots reserved for them",
                    self.config.drafts + 1, self._reserved_slots(),
                )  # fmt: skip

    def _log_plan(self, token_bytes: dict[Role, int]) -> None:
        memory = {
            role: ModelMemory(model.weight_bytes, token_bytes[role]) for role, model in self.ensemble.models.items()
        }
        ranks = self.world.all_gather_object(memory)
        if self._speaks_here:
            table = plan_table(ranks, self.model_runner.max_total_num_tokens)
            logger.info("proxythinker: placement %s; memory:\n%s", self.placement, table)


def _tokens_read(batch: ForwardBatch) -> torch.Tensor:
    """[N] integers: tokens of each row's request that the models have read when they say it, of a batch before it runs.

    Of a verify each token has a row; of other steps the last token of each request.
    """
    return batch.positions + 1 if batch.forward_mode.is_target_verify() else batch.seq_lens
