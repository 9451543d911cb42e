"""The models of this rank, run on one batch: who runs for which requests, on which streams, and where logits meet.

It knows no scheduler: a step of guidance is one `forward`, and other steps may run some of the models only.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch

from sgl_proxythinker.models.hosted import HostedModel
from sgl_proxythinker.models.sm_partition import sms_by_weights
from sgl_proxythinker.roles import BASE, Role
from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.step.logits_gather import LogitsGather
from sgl_proxythinker.step.plan import Step
from sgl_proxythinker.step.rows import SelectedRequests, select_rows
from sgl_proxythinker.upstream.runtime import (
    CaptureHiddenMode,
    ForwardBatch,
    LogitsProcessorOutput,
    ModelRunnerOutput,
)


class EnsembleOutput(NamedTuple):
    """What the models made of a batch."""

    of_primary: ModelRunnerOutput  # the primary's own; without logits where its model ran for no request
    logits: dict[Role, ShardedLogits]  # of every model that ran, on whatever ranks; raw, read only


class Ensemble:
    """The models of this rank.

    Args:
        primary: the one whose worker SGLang's scheduler calls. It runs last: the scheduler waits for the event that
            its runner records.
        colocated: the others of this rank, in the order in which they run.
        gather: brings the logits of models on other ranks.
        has_streams: decode steps of the models run at the same time, each on a CUDA stream of its own.
    """

    def __init__(
        self, primary: HostedModel, colocated: Collection[HostedModel], gather: LogitsGather, has_streams: bool
    ):
        self.primary = primary
        self.colocated = tuple(colocated)
        self._gather = gather
        self._streams = {model.role: torch.cuda.Stream() for model in colocated} if has_streams else {}

    @property
    def models(self) -> dict[Role, HostedModel]:
        """Those of this rank by their roles, the primary's first."""
        return {model.role: model for model in (self.primary, *self.colocated)}

    def forward(
        self, step: Step, batch: ForwardBatch, given: Mapping[Role, torch.Tensor], *args: Any, **kwargs: Any
    ) -> EnsembleOutput:
        """Run the models on a batch, each for the requests that need it. Collective where models have ranks of theirs.

        Args:
            step: what the requests ask for.
            batch: of all requests, which can be divided where models run for some of them. Read only.
            given: raw logits of models of this rank that have read the batch, and don't run.
            args, kwargs: of the runner's `forward`, for a primary base.
        """
        divided = {role: own for role, own in _divided(step, batch).items() if role not in given}
        views = {role: _without_logprobs(own) for role, own in divided.items()}
        if self.primary.role == BASE:
            views[BASE] = batch
        elif divided.get(self.primary.role) is batch:
            views[self.primary.role] = _with_logprobs_of(batch, self.primary.runner.model_config.vocab_size)
        # Prefill fills a GPU by itself; the small kernels of a decode step don't.
        is_short = batch.forward_mode.is_decode() or batch.forward_mode.is_target_verify()
        if not is_short:
            self._see(views)
        streams = self._streams if is_short else {}
        here = dict(given)
        for model in self.colocated:
            if model.role in views:
                here[model.role] = self._launch(model, views[model.role], streams.get(model.role))
        of_primary = self._run_primary(views.get(self.primary.role), *args, **kwargs)
        if self.primary.role in views:
            here[self.primary.role] = of_primary.logits_output.next_token_logits
        if streams:
            self.wait_for(step.runs)
        return EnsembleOutput(of_primary, self.gather(here, step))

    def raw_logits(self, model: HostedModel, batch: ForwardBatch) -> torch.Tensor:
        """[rows, head rows] float32: what a model of this rank says of a batch; of a graph, until its next replay."""
        return _logits(model, _without_logprobs(batch))

    def start(self, model: HostedModel, batch: ForwardBatch, out: torch.Tensor) -> None:
        """Start a decode step of a model, which may run beside the next `forward` of those that it is given to.

        Args:
            model: of this rank.
            batch: its batch, which must live until that `forward` has returned.
            out: [rows, head rows] float32, where its raw logits are by then.
        """
        stream = self._streams.get(model.role)
        logits = self._launch(model, _without_logprobs(batch), stream)
        with torch.cuda.stream(stream) if stream else nullcontext():
            out.copy_(logits)

    def wait_for(self, roles: Collection[str]) -> None:
        """Let the current stream wait for steps of these models that were started."""
        for role, stream in self._streams.items():
            if role in roles:
                torch.cuda.current_stream().wait_stream(stream)

    def gather(self, here: Mapping[Role, torch.Tensor], step: Step) -> dict[Role, ShardedLogits]:
        """The logits of all models that run in a step, from those of this rank. Collective as `forward`."""
        return self._gather.gather(here, step.logits_rows())

    def sms_beside_base(self, roles: Collection[str]) -> int | None:
        """SMs for those of the small models that are captured on a part of the GPU, together; None: on all of it.

        A kernel whose blocks wait for others needs room for all of them. All-reduces of two models that come in another
        order on another rank need it for both, and some quantized products (Marlin's) start a block for each SM of the
        GPU, whether it may use them or not.
        """
        models = [model for model in self.colocated if model.role in roles]
        has_collectives = any(model.group.ps.tp_size > 1 for model in self.colocated)
        has_collectives_of_two = len(self.colocated) > 1 and has_collectives
        is_quantized = any(model.runner.model_config.quantization for model in models)
        if not models or not self._streams or has_collectives_of_two or is_quantized:
            return None
        sm_count = torch.cuda.get_device_properties(self.primary.runner.gpu_id).multi_processor_count
        theirs = sum(model.weight_bytes for model in models)
        return sms_by_weights(theirs, self.primary.weight_bytes, sm_count, has_collectives)

    def _launch(self, model: HostedModel, batch: ForwardBatch, stream: torch.cuda.Stream | None) -> torch.Tensor:
        """The raw logits of a model beside the primary's: [rows, head rows] float32.

        With a stream they are there once the current one has waited for it; the batch must live until then.
        """
        if stream is None:
            return _logits(model, batch)
        main = torch.cuda.current_stream()
        stream.wait_stream(main)
        with torch.cuda.stream(stream):
            logits = _logits(model, batch)
        # The primary announces to the scheduler that its step's shared tables were read: for this model too. Its graph
        # copies what it reads of them before it is replayed.
        was_read, model.runner.war_fastpath_read_done_event = model.runner.war_fastpath_read_done_event, None
        if was_read is None:
            main.wait_stream(stream)
        else:
            main.wait_event(was_read)
        return logits

    def _run_primary(self, batch: ForwardBatch | None, *args: Any, **kwargs: Any) -> ModelRunnerOutput:
        """The base on all requests; where a small model is the primary, that one on its own, if there are any."""
        if batch is None:
            return ModelRunnerOutput(LogitsProcessorOutput(next_token_logits=None), can_run_graph=False)
        if self.primary.role != BASE:
            return self.primary.forward(batch)
        return self.primary.forward(batch, *args, **kwargs)

    def _see(self, batches: Mapping[Role, ForwardBatch]) -> None:
        """Have all models embed the pictures of a prefill before the first of them reads it.

        The primary is the last: its batch may be the one that all views are of, and its ids are clamped in place.
        """
        for model in (*self.colocated, self.primary):
            if (batch := batches.get(model.role)) is not None and batch.contains_mm_inputs():
                model.see(batch)


def _logits(model: HostedModel, batch: ForwardBatch) -> torch.Tensor:
    return model.forward(batch).logits_output.next_token_logits


def _divided(step: Step, batch: ForwardBatch) -> dict[Role, ForwardBatch]:
    """The batch of each small model that runs for a request; models of the same requests have the same batch."""
    made: dict[SelectedRequests, ForwardBatch] = {}
    for requests in step.runs.values():
        if requests not in made:
            made[requests] = batch if len(requests) == step.size else select_rows(batch, requests)
    return {role: made[requests] for role, requests in step.runs.items()}


def _with_logprobs_of(batch: ForwardBatch, head_rows: int) -> ForwardBatch:
    """Prompt logprobs are the base's; its scheduler expects them on every rank, where nobody reads them.

    Places of pictures are asked for as the last id of the base's head, and that of a small model may have fewer rows.
    """
    if batch.extend_input_logprob_token_ids_gpu is None:
        return batch
    view = copy.copy(batch)
    view.extend_input_logprob_token_ids_gpu = batch.extend_input_logprob_token_ids_gpu.clamp(max=head_rows - 1)
    return view


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
