"""The driver of a cycle, in the place of SGLang's draft worker: draft, verify, accept.

The expert writes k tokens ahead, one decode step each, and reads the last of them too, so that its row is there for the
token after them. Base and amateur read all of it at once. A token is drawn at every position from the fused rows, and
those count that follow drafts which were drawn as well. KV of drafts that don't count is overwritten by the next cycle.
With `auto` a cycle may go without drafts: it is a decode step of all models then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from sgl_proxythinker.guidance import readers_of
from sgl_proxythinker.models.chains import as_decode
from sgl_proxythinker.models.hosted import HostedModel
from sgl_proxythinker.models.verify_graphs import chain_input
from sgl_proxythinker.roles import DRAFTER, Role
from sgl_proxythinker.speculation.chain_masks import DraftMasks
from sgl_proxythinker.speculation.chain_sampling import sample_chains
from sgl_proxythinker.speculation.draft_choice import DraftChoice
from sgl_proxythinker.speculation.penalties import WrittenCounts
from sgl_proxythinker.speculation.pending import PendingTokens
from sgl_proxythinker.step.logits_gather import one_token_for_all
from sgl_proxythinker.step.non_finite_rows import attach_verdict
from sgl_proxythinker.step.row_memory import largest_batch
from sgl_proxythinker.step.rows import SelectedRequests, select_rows, to_device
from sgl_proxythinker.step.trace import trace_tokens
from sgl_proxythinker.step.worker import ProxyWorker
from sgl_proxythinker.upstream.runtime import CaptureHiddenMode, ForwardBatch
from sgl_proxythinker.upstream.speculation import BaseSpecWorker, ForwardMode, GenerationBatchResult


class SpeculativeWorker(BaseSpecWorker):
    """What SGLang's scheduler calls for a batch of a server that speculates.

    Args:
        server_args: SGLang's, of this server.
        target_worker: the models of this rank.
        gpu_id, ps, nccl_port: SGLang's; the models have theirs already.
    """

    def __init__(self, server_args: Any, gpu_id: int, ps: Any, nccl_port: int, target_worker: ProxyWorker):
        super().__init__()
        self.server_args, self.device = server_args, server_args.device
        self._target_worker = target_worker
        self.topk = 1
        self.speculative_num_steps = server_args.speculative_num_steps
        self.speculative_num_draft_tokens = server_args.speculative_num_draft_tokens
        models = target_worker.ensemble.models
        # SGLang looks for a draft's KV pool; any model's will do: all have the same slots.
        runner = models.get(DRAFTER, target_worker.ensemble.primary).runner
        self._draft_worker = SimpleNamespace(
            draft_runner=runner, draft_runners=[], graph_memory_usage={}, graph_time_usage={}, weight_load_time=0.0
        )
        self._offsets = torch.arange(self.speculative_num_draft_tokens, device=self.device)
        self._written = WrittenCounts(target_worker.head_rows, self.device)
        self._shifted: list[str] = []  # the requests of
        self._shifts: torch.Tensor | None = None
        chooses = target_worker.config.chooses_drafts
        self._choice = DraftChoice(self.speculative_num_steps) if chooses else None

    @property
    def spec_v2_attn_backends(self) -> tuple:
        return tuple(model.runner.attn_backend for model in self._target_worker.ensemble.models.values())

    def alloc_memory_pool(
        self, memory_pool_config: Any = None, req_to_token_pool: Any = None, token_to_kv_pool_allocator: Any = None
    ) -> None:
        """The models have their pools."""
        self.req_to_token_pool = req_to_token_pool
        self.token_to_kv_pool_allocator = token_to_kv_pool_allocator

    def init_attention_backends(self) -> None:
        """The models have theirs."""

    def init_cuda_graphs(self) -> None:
        """The models have theirs."""

    def forward_batch_generation(
        self, batch: Any, on_publish: Callable[[torch.Tensor], None] | None = None, grammar_barrier: Any = None
    ) -> GenerationBatchResult:
        """A step of prefill, or a cycle of 1 to k + 1 tokens for every request of `batch`."""
        if batch.forward_mode.is_extend() or batch.is_extend_in_batch:
            result = self._prefill(batch)
            result.new_seq_lens = batch.seq_lens
            result.next_draft_input = PendingTokens(result.next_token_ids)
        else:
            result = self._cycle(batch, self._drafts_of(batch.reqs))
        if on_publish is not None:
            on_publish(result.new_seq_lens)
        return result

    def on_verify_complete_cpu(self, num_correct_drafts_per_req: list[int], batch_size: int | None = None) -> None:
        """SGLang's call for each cycle in turn, once its results are on the host."""
        if self._choice is not None:
            self._choice.resolve(num_correct_drafts_per_req)

    def _prefill(self, batch: Any) -> GenerationBatchResult:
        """A step of prefill, as a server without speculation has it."""
        if self._choice is not None:
            self._choice.interrupt()
        # SGLang doesn't look for those that only score under speculation. The scheduler undoes what is written here.
        batch.is_prefill_only = all(req.sampling_params.max_new_tokens == 0 for req in batch.reqs)
        if batch.sampling_info is not None:
            additive, scaling = self._written.begin(batch.reqs, batch.seq_lens_cpu.tolist())
            batch.sampling_info.acc_additive_penalties, batch.sampling_info.acc_scaling_penalties = additive, scaling
        return self._target_worker.forward_batch_generation(batch)

    def _drafts_of(self, reqs: Sequence[Any]) -> int:
        """How many drafts each of these requests gets now; the same on all ranks."""
        if self._choice is None:
            return self.speculative_num_steps
        target = self._target_worker
        # Rows of chains of a larger batch are in no plan, and on a GPU it has no graph.
        is_too_large = len(reqs) > largest_batch(self.server_args, target.model_runner.max_running_requests)
        if is_too_large or not any(_is_drafted_for(req) and _takes_several(req) for req in reqs):
            self._choice.skip()
            return 0
        if self._choice.is_due:
            table = self._choice.plan() if target.rank == 0 else {}
            if target.placement.world_size > 1:  # times are each rank's own
                table = target.world.broadcast_object(table)
            self._choice.follow(table)
        return self._choice.choose(len(reqs), time.perf_counter())

    def _cycle(self, batch: Any, drafts: int) -> GenerationBatchResult:
        target, seq_lens, each = self._target_worker, batch.seq_lens, drafts + 1
        positions = seq_lens[:, None] + self._offsets[:each]
        slots = self.req_to_token_pool.req_to_token[batch.req_pool_indices[:, None], positions].long()
        pending = batch.spec_info.bonus_tokens.long()
        batch.forward_mode, batch.out_cache_loc, batch.seq_lens_sum = ForwardMode.TARGET_VERIFY, slots.flatten(), None
        batch.input_ids = pending.repeat_interleave(each)
        batch.spec_info = chain_input(batch.input_ids, positions.flatten(), each)
        # Nobody embeds a picture in a chain. SGLang would copy the shifts of all pictures from the host, and wait.
        shifts, batch.multimodal_inputs = self._rotary_shifts(batch), [None] * len(batch.reqs)
        # Its positions, rotary ones too, are made on the device for all steps of the drafter at once.
        chain = ForwardBatch.init_new(
            batch,
            target.model_runner,
            capture_hidden_mode=CaptureHiddenMode.NULL,
            return_hidden_states_before_norm=False,
        )
        if shifts is not None:
            chain.mrope_positions = chain.mrope_positions + shifts.repeat_interleave(each)
        given: dict[Role, torch.Tensor] = {}
        if drafts:
            tokens, given = self._draft(batch.reqs, chain, pending, each)
            chain.input_ids = tokens.flatten()
            chain.spec_info = chain_input(chain.input_ids, positions.flatten(), each)
        else:
            tokens, chain = pending[:, None], as_decode(chain, pending, each, 0)
        verified = target.verify(batch.reqs, chain, given, each)
        result, logits_output = verified.result, verified.result.logits_output

        penalties = self._written.along(batch.reqs, tokens, seq_lens)
        drawn = sample_chains(target.model_runner.sampler, batch, logits_output, tokens, positions, penalties)
        if target.placement.world_size > 1:
            drawn = one_token_for_all(drawn, target.world)
        chains = drawn.view_as(tokens).long()
        accept_lens = self._accept(chains, tokens)
        takes_several = [_takes_several(req) for req in batch.reqs]
        if not all(takes_several):
            accept_lens = accept_lens.where(to_device(takes_several, torch.bool, self.device), 1)
        self._written.accept(batch.reqs, tokens, accept_lens)
        if verified.marked is not None:
            target.written.accept(verified.marked, accept_lens)
        # A row that follows a draft which was not drawn counts for nothing.
        counts = (self._offsets[:each] < accept_lens[:, None]).flatten()
        attach_verdict(logits_output, verified.sound | ~counts, verified.step.owner)
        result.next_token_ids = drawn.int()
        if verified.step.traced and target.rank == 0:
            trace_tokens(result)
        bonus = chains.gather(1, accept_lens[:, None] - 1)[:, 0]
        return GenerationBatchResult(
            logits_output=logits_output,
            next_token_ids=result.next_token_ids,
            can_run_cuda_graph=result.can_run_cuda_graph,
            accept_lens=accept_lens.int(),
            new_seq_lens=seq_lens + accept_lens,
            next_draft_input=PendingTokens(bonus),
            speculative_num_draft_tokens=each,
        )

    def _rotary_shifts(self, batch: Any) -> torch.Tensor | None:
        """[B] int64: how far pictures move the rotary positions of the text behind them; None: nowhere."""
        rids = [req.rid for req in batch.reqs]
        if rids != self._shifted:
            pictures = batch.multimodal_inputs or []
            shifts = [0 if of_one is None else int(of_one.mrope_position_delta) for of_one in pictures]
            self._shifts = to_device(shifts, torch.int64, self.device) if any(shifts) else None
            self._shifted = rids
        return self._shifts

    def _accept(self, chains: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """[B] int64, how many tokens of each chain count.

        Args:
            chains: [B, n] int64, the token that was drawn at each position.
            tokens: [B, n] int64, what was read there.
        """
        return (chains[:, :-1] == tokens[:, 1:]).int().cumprod(dim=1).sum(dim=1) + 1

    def _draft(
        self, reqs: Sequence[Any], chain: ForwardBatch, pending: torch.Tensor, each: int
    ) -> tuple[torch.Tensor, dict[Role, torch.Tensor]]:
        """What the models will read, and the drafter's logits of it.

        Args:
            reqs: SGLang's `Req` of each of B requests.
            chain: the verify of their chains, of which only the tokens are not known. Read only.
            pending: [B] int64, the token of each request that no model has read.
            each: n, tokens of a chain.

        Returns:
            [B, n] int64 tokens, the same on all ranks, and the drafter's raw logits of the requests that it reads, n
            rows of each, [.., head rows] float32, which are there once the verify has ended; none on a rank without it.
            What stands for drafts of other requests is their last token, again and again.
        """
        target = self._target_worker
        drafter = target.ensemble.models.get(DRAFTER)
        chains, logits = pending[:, None].repeat(1, each), {}
        if drafter is not None:
            drafted = [_is_drafted_for(req) for req in reqs]
            if all(drafted):
                chains, logits[DRAFTER] = self._write_ahead(drafter, reqs, chain, pending, each)
            else:
                selected = SelectedRequests.of(drafted, self.device, each)
                theirs = [reqs[place] for place in selected.index]
                rows = selected.on_device
                chains[rows], logits[DRAFTER] = self._write_ahead(
                    drafter, theirs, select_rows(chain, selected), pending[rows], each
                )
        if target.placement.world_size > 1:
            target.world.broadcast(chains, src=target.placement.ranks[DRAFTER][0])
        return chains, logits

    def _write_ahead(
        self, drafter: HostedModel, reqs: Sequence[Any], chain: ForwardBatch, pending: torch.Tensor, each: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`_draft` on a rank with the drafter: n decode steps of it, the last of which reads the last draft.

        Nobody waits for that one before the verify, so it runs beside it.
        """
        target, ensemble = self._target_worker, self._target_worker.ensemble
        masks = DraftMasks(reqs, target.head_rows)
        width = drafter.runner.model_config.vocab_size
        rows = torch.empty(len(pending), each, width, dtype=torch.float32, device=self.device)
        tokens = [pending]
        for offset in range(each):
            step = as_decode(chain, tokens[-1], each, offset)
            if offset == each - 1:
                ensemble.start(drafter, step, rows[:, offset])
                break
            # A decode graph's logits are there until its next replay.
            rows[:, offset] = ensemble.raw_logits(drafter, step)
            tokens.append(self._choose(masks.masked(rows[:, offset, : target.vocab_size])))
            masks.read(tokens[-1])
        return torch.stack(tokens, dim=1), rows.flatten(0, 1)

    def _choose(self, logits: torch.Tensor) -> torch.Tensor:
        """[B] int64: the draft that follows, from [B, ids] raw logits of the drafter."""
        return logits.argmax(-1)


def _is_drafted_for(req: Any) -> bool:
    """Whether the drafter has read what a request has written. `req`: SGLang's `Req`."""
    return DRAFTER in readers_of(req.extra_key)


def _takes_several(req: Any) -> bool:
    """Whether a request may get several tokens of one cycle. `req`: SGLang's `Req`.

    A stream with an interval of its own is sent at certain numbers of tokens, which a chain would jump over.
    """
    return not req.stream or (req.sampling_params.stream_interval or 1) == 1
