"""What the requests of a step ask of guidance, on the device; copied there when it differs from the last step's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from sgl_proxythinker.guidance import CARRIED, Guidance, readers_of
from sgl_proxythinker.roles import BASE, Role
from sgl_proxythinker.step.law_rows import LawRows
from sgl_proxythinker.step.marked_texts import MarkedRequests
from sgl_proxythinker.step.plausible import PlausibleRows
from sgl_proxythinker.step.rows import SelectedRequests, to_device
from sgl_proxythinker.step.trace import TracedRows

_LAW = Guidance._fields.index("law")  # asked of every request in every step


class Step(NamedTuple):
    """A batch of B requests, in its order, and their N rows of logits; N is B where each samples one token."""

    owner: list[int]  # [N]: the request of each row; those of one request lie side by side
    pairs: tuple[tuple[Role, Role], ...]  # the C pairs of models whose difference steers a row
    weights: torch.Tensor  # [C, 2, N] float32: of the first and of the second model of each pair
    clips: torch.Tensor | None  # [N] float32, infinity where a row has none; None: no row has one
    laws: tuple[LawRows | None, ...]  # of each pair the rows whose strength a law says; None: it says none
    runs: Mapping[Role, SelectedRequests]  # of each small model that runs for any request
    traced: tuple[TracedRows, ...]  # the rows whose requests ask for a trace, those of each pair of models together
    marked: MarkedRequests | None  # those whose law has a marker; None: no request's does
    plausible: PlausibleRows | None  # the rows of which some ids can't be drawn; None: there is none

    @property
    def size(self) -> int:
        """B"""
        return self.owner[-1] + 1

    def logits_rows(self) -> dict[Role, int]:
        """How many rows of logits each model that runs has, whatever rank it is on."""
        each = len(self.owner) // self.size
        return {BASE: len(self.owner)} | {role: len(requests) * each for role, requests in self.runs.items()}


class StepInputs:
    """Keeps the step that is under way.

    Args:
        small_models: the roster without the base, in the order in which they run.
        device: of the models.
    """

    def __init__(self, small_models: Sequence[Role], device: str):
        self._small_models = tuple(small_models)
        self._device = device
        self._asked: tuple | None = None
        self._guidances: list[Guidance] = []
        self._prompt_tokens: Sequence[int] = ()
        self._step: Step  # of `_guidances`, once there was one
        self._is_open = False

    @contextmanager
    def of(self, reqs: Sequence[Any], for_all_requests: bool, each: int = 1) -> Iterator[Step]:
        """While it is open, `current` is the step of these requests.

        Args:
            reqs: SGLang's `Req` of each request.
            for_all_requests: the small models run for all of them, whatever these ask for.
            each: rows of logits of a request.

        Raises:
            RuntimeError: a request has not been admitted, or has a prefix that it can't go on from.
        """
        # A decoding step asks for the same as the last one, mostly: these are compared, and not read.
        carried = [_carried(req) for req in reqs]
        prompts = [_prompt_tokens(req, value) for req, value in zip(reqs, carried, strict=True)]
        asked = carried, [readers_of(req.extra_key) for req in reqs], prompts, for_all_requests, each
        if asked != self._asked:
            self._asked = None  # where the following raises, the next step is read again
            self._guidances = [Guidance.of_carried(value) for value in carried]
            self._prompt_tokens = prompts
            for guidance, readers in zip(self._guidances, asked[1], strict=True):
                if not guidance.reads <= readers:
                    raise RuntimeError(
                        f"a request that is read by {_listed(guidance.reads)} has a prefix that only "
                        f"{_listed(readers)} read"
                    )
            self._step = self.on_device(self._guidances, None if for_all_requests else asked[1], each, prompts)
            self._asked = asked
        self._is_open = True
        try:
            yield self._step
        finally:
            self._is_open = False

    @property
    def current(self) -> Step:
        if not self._is_open:
            raise RuntimeError("a forward outside of forward_batch_generation has no strength")
        return self._step

    @property
    def guided_rows(self) -> int:
        """How many rows of the current step small models steer, at any token that it may be."""
        step = self.current
        guided = sum(not guidance.is_base_alone for guidance in self._guidances)
        return guided * (len(step.owner) // step.size)

    def for_all_requests(self) -> Step:
        """The current step with the small models run for all requests: right too, and slower."""
        return self.on_device(self._guidances, None, len(self._step.owner) // self._step.size, self._prompt_tokens)

    def on_device(
        self,
        guidances: Sequence[Guidance],
        readers: Sequence[frozenset[str]] | None,
        each: int = 1,
        prompt_tokens: Sequence[int] = (),
    ) -> Step:
        """The step of requests that ask for this.

        Args:
            guidances: what each asks for, of B requests.
            readers: the models that read each one's tokens; None: all of the roster.
            each: rows of logits of a request.
            prompt_tokens: of the requests that have a law.
        """
        owner = [request for request in range(len(guidances)) for _ in range(each)]
        named = dict.fromkeys(contrast[:2] for guidance in guidances for contrast in guidance.contrasts)
        # Sums are rounded one after the other: in the same order whoever else is in the batch.
        in_order = sorted(named, key=lambda pair: self._small_models.index(Role(pair[0])))
        pairs = tuple((Role(plus), Role(minus)) for plus, minus in in_order)
        # [C, N, 2], of which the last is the first where they are read
        weights = [[guidances[request].weights_of(pair) for request in owner] for pair in pairs]
        table = to_device(weights, torch.float32, self._device).view(len(pairs), len(owner), 2)
        clip_of = [guidance.clip for guidance in guidances]
        clips = None
        if any(clip is not None for clip in clip_of):
            by_row = [math.inf if clip_of[request] is None else clip_of[request] for request in owner]
            clips = to_device(by_row, torch.float32, self._device)
        runs = self._runs(readers or [frozenset(self._small_models)] * len(guidances), each)
        told = dict.fromkeys(guidance.trace for guidance in guidances if guidance.trace is not None)
        traced = tuple(
            TracedRows.of(
                (Role(plus), Role(minus)),
                [row for row, request in enumerate(owner) if guidances[request].trace == (plus, minus)],
                runs,
                self._device,
            )
            for plus, minus in told
        )
        laws = tuple(self._laws(pair, guidances, owner, prompt_tokens, runs) for pair in pairs)
        markers = {
            request: guidance.law.after.text.encode()
            for request, guidance in enumerate(guidances)
            if guidance.law is not None and guidance.law.after is not None
        }
        marked = MarkedRequests.of(markers, len(guidances), self._device) if markers else None
        shares = {
            row: share for row, request in enumerate(owner) if (share := guidances[request].plausible) is not None
        }
        plausible = PlausibleRows.of(shares, self._device) if shares else None
        return Step(owner, pairs, table.transpose(1, 2).contiguous(), clips, laws, runs, traced, marked, plausible)

    def _laws(
        self,
        pair: tuple[Role, Role],
        guidances: Sequence[Guidance],
        owner: Sequence[int],
        prompt_tokens: Sequence[int],
        runs: Mapping[Role, SelectedRequests],
    ) -> LawRows | None:
        """Of the rows that a pair steers."""
        ruled = {
            row: (law, prompt_tokens[request])
            for row, request in enumerate(owner)
            if (law := guidances[request].law) is not None
            and any(contrast[:2] == pair for contrast in guidances[request].contrasts)
        }
        return LawRows.of(pair, ruled, runs, self._device) if ruled else None

    def _runs(self, readers: Sequence[frozenset[str]], each: int) -> dict[Role, SelectedRequests]:
        """The requests of each small model; models with the same requests share one object."""
        selected: dict[tuple[bool, ...], SelectedRequests] = {}
        runs = {}
        for role in self._small_models:
            needed = tuple(role in names for names in readers)
            if any(needed):
                if needed not in selected:
                    selected[needed] = SelectedRequests.of(needed, self._device, each)
                runs[role] = selected[needed]
        return runs


def _prompt_tokens(req: Any, carried: Any) -> int:
    """Of a request with a law, from which the generated ones are counted; of others nobody asks: 0."""
    return 0 if carried[_LAW] is None else len(req.origin_input_ids)


def _carried(req: Any) -> Any:
    params = req.sampling_params.custom_params
    if params is None or CARRIED not in params:
        raise RuntimeError(f"request {req.rid} came to a step without its guidance")
    return params[CARRIED]


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
