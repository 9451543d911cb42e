"""Penalties along a chain are those that SGLang would apply at each of its positions, were it alone."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from live_bytes import LiveBytes
from sgl_proxythinker.speculation.penalties import WrittenCounts

V, END = 12, 3
TOKENS = st.integers(0, V - 1)
PARAMS = st.fixed_dictionaries(
    {
        "frequency_penalty": st.sampled_from([0.0, 0.5, -1.0]),
        "presence_penalty": st.sampled_from([0.0, 0.25, 2.0]),
        "repetition_penalty": st.sampled_from([1.0, 1.5, 0.5]),
        "min_new_tokens": st.integers(0, 5),
        "stop_token_ids": st.sampled_from([None, {5}, {5, 7}]),
    }
)


class Request:
    """What of SGLang's `Req` is read."""

    def __init__(self, params: dict, prompt: int, output_ids: list[int] = ()):
        self.sampling_params = SimpleNamespace(**params)
        self.origin_input_ids = [0] * prompt
        self.output_ids = list(output_ids)  # that the host knows
        self.written = list(output_ids)
        self.tokenizer = SimpleNamespace(eos_token_id=END, additional_stop_token_ids={4})
        self.is_finished = False

    def finished(self) -> bool:
        return self.is_finished


def sglangs(reqs: list[Request], written: list[list[int]], logits: torch.Tensor) -> torch.Tensor:
    """[B, V] what SGLang makes of `logits` after these tokens of each request, taken one a step."""
    rows = []
    for one, tokens, row in zip(reqs, written, logits, strict=True):
        orchestrator = orchestrator_of([one])
        for token in tokens:
            orchestrator.cumulate_output_tokens(torch.tensor([token]))
        rows.append(shaped(orchestrator, row[None]))
    return torch.cat(rows)


def orchestrator_of(reqs: list[Request]) -> Any:
    """SGLang's penalties of a batch that begins."""
    from sglang.srt.sampling import penaltylib

    kinds = (
        penaltylib.BatchedFrequencyPenalizer,
        penaltylib.BatchedMinNewTokensPenalizer,
        penaltylib.BatchedPresencePenalizer,
        penaltylib.BatchedRepetitionPenalizer,
    )
    batch = SimpleNamespace(reqs=reqs, device="cpu")
    return penaltylib.BatchedPenalizerOrchestrator(V, _Batch(batch), set(kinds))


def shaped(orchestrator: Any, logits: torch.Tensor) -> torch.Tensor:
    from sglang.srt.sampling.penaltylib.repetition_penalty import apply_scaling_penalties

    rows = logits.clone()
    orchestrator.accumulate_additive_penalties(rows)
    if (scaling := orchestrator.accumulate_scaling_penalties()) is not None:
        apply_scaling_penalties(rows, scaling)
    return rows


_KEPT = []


class _Batch:
    """A batch that a weak reference can name."""

    def __init__(self, batch: SimpleNamespace):
        self.reqs, self.device = batch.reqs, batch.device
        _KEPT.append(self)


def applied(parts: Iterable, logits: torch.Tensor) -> torch.Tensor:
    from sglang.srt.sampling.penaltylib.repetition_penalty import apply_scaling_penalties

    told = logits.clone()
    for rows, (additive, scaling) in parts:
        if additive is not None:
            told[rows] += additive
        if scaling is not None:
            apply_scaling_penalties(told[rows], scaling)
    return told


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("begins"), PARAMS, st.integers(1, 5)),
        st.tuples(st.just("ends"), st.integers(0, 9)),
        st.tuples(st.just("is retracted"), st.integers(0, 9)),
        st.tuples(st.just("cycle"), st.lists(st.lists(TOKENS, min_size=4, max_size=4), min_size=14, max_size=14),
                  st.lists(st.integers(1, 3), min_size=14, max_size=14), st.booleans()),
    ),
    min_size=4, max_size=14,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(events=EVENTS, each=st.integers(1, 3), at_once=st.sampled_from([1, 3, 4, 256]), seed=st.integers(0, 9))
def test_each_position_has_what_sglang_would_apply_there(sglang_once, events, each, at_once, seed):
    """Of requests that come and go, where the host learns of tokens a cycle late.

    Kills: one token a cycle, drafts that were not accepted, those of another request or of one whose row it was, tokens
    that a request forgets when it is retracted, or has twice; a minimum counted from what the host knows, the base's
    own ends; a part of the rows that is left out, or gets another's.
    """
    at_random = torch.Generator().manual_seed(seed)
    counts, running = WrittenCounts(V, "cpu", at_once), []

    def begin(reqs: list[Request]) -> None:
        logits = torch.randn(len(reqs), V, generator=at_random) * 3
        read = [len(one.origin_input_ids) + len(one.output_ids) for one in reqs]
        told = applied([(slice(None), counts.begin(reqs, read))], logits)
        torch.testing.assert_close(told, sglangs(reqs, [one.written for one in reqs], logits), rtol=1e-6, atol=1e-6)
        for one in reqs:
            one.written.append(int(torch.randint(V, (), generator=at_random)))

    for kind, *told_of in events:
        if kind == "begins":
            running.append(Request(*told_of))
            begin(running[-1:])
        elif not running:
            continue
        elif kind == "ends":
            running.pop(told_of[0] % len(running)).is_finished = True
        elif kind == "is retracted":
            one = running[told_of[0] % len(running)]
            one.output_ids = list(one.written)
            begin([one])
        else:
            drafts, accepted, host_knows = told_of
            chains = torch.tensor(
                [[one.written[-1], *row[: each - 1]] for one, row in zip(running, drafts, strict=False)]
            )
            read = torch.tensor([len(one.origin_input_ids) + len(one.written) - 1 for one in running])
            logits = torch.randn(len(running) * each, V, generator=at_random) * 3
            told = applied(counts.along(running, chains, read), logits)
            for offset in range(each):
                written = [
                    [*one.written, *row[1 : offset + 1]] for one, row in zip(running, chains.tolist(), strict=True)
                ]
                wanted = sglangs(running, written, logits[offset::each])
                torch.testing.assert_close(told[offset::each], wanted, rtol=1e-6, atol=1e-6)
            lengths = torch.tensor(accepted[: len(running)]).clamp(max=each)
            counts.accept(running, chains, lengths)
            for one, row, length in zip(running, chains.tolist(), lengths.tolist(), strict=True):
                if host_knows:
                    one.output_ids = list(one.written)
                one.written += [*row[1:length], int(torch.randint(V, (), generator=at_random))]
    _KEPT.clear()


def test_rows_are_of_requests_that_run(sglang_once):
    """Kills: memory that grows with the requests that were ever served, a row of two that run."""
    penalized = {"frequency_penalty": 0.0, "presence_penalty": 0.0, "repetition_penalty": 1.05, "min_new_tokens": 0}
    penalized["stop_token_ids"] = None
    counts, running, kept_by_others = WrittenCounts(V, "cpu"), [], []
    for _ in range(200):
        running.append(Request(penalized, 3))
        counts.begin(running[-1:], [3])
        if len(running) == 5:
            kept_by_others.append(running.pop(2))  # the first two go on
            kept_by_others[-1].is_finished = True
        assert len({counts._row_of[one] for one in running}) == len(running), "a row is one request's"
    assert len(counts._counts) <= 16
    plain = [Request(penalized | {"repetition_penalty": 1.0}, 3)]
    assert counts.begin(plain, [3]) == (None, None)
    assert list(counts.along(plain, torch.zeros(1, 2, dtype=torch.int64), torch.tensor([3]))) == []


def test_rows_are_penalized_a_part_at_a_time_and_biased_after_that(sglang_once):
    """Kills: a part that is let go of only when the next is there, or a bias for each row is, and one that is left out;
    a bias that is applied with each part, or not at all."""
    from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo

    from sgl_proxythinker.speculation.chain_sampling import sample_chains

    requests, each, wide = 8, 2, 1000
    fused = torch.zeros(requests * each, wide)
    none = torch.zeros(requests)
    info = SamplingBatchInfo(
        temperatures=none, top_ps=none, top_ks=none, min_ps=none, is_all_greedy=True, is_any_greedy=True,
        need_top_p_sampling=False, need_top_k_sampling=False, need_min_p_sampling=False, vocab_size=wide,
        logit_bias=torch.ones(requests, wide),
    )  # fmt: skip
    batch = SimpleNamespace(
        sampling_info=info, has_grammar=False, return_logprob=False, top_logprobs_nums=None, token_ids_logprobs=None
    )
    tokens = torch.zeros(requests, each, dtype=torch.int64)

    def made(value: float | None) -> torch.Tensor | None:
        return None if value is None else torch.full((2, wide), value)

    def penalties() -> Iterable:
        for begin in range(0, len(fused), 2):
            for additive, scaling in ((begin + 1.0, None), (None, 2.0)):
                assert live.now < wide, "the part before is still there, or a bias already"
                yield slice(begin, begin + 2), (made(additive), made(scaling))

    def sampler(output: Any, at_each: Any, *others: Any) -> torch.Tensor:
        assert at_each.logit_bias.shape == output.next_token_logits.shape
        return output.next_token_logits.argmax(-1)

    output = SimpleNamespace(next_token_logits=fused)
    with LiveBytes() as live:
        sample_chains(sampler, batch, output, tokens, tokens, penalties())
    assert fused[:, 0].tolist() == fused[:, -1].tolist() == [(row // 2 * 2 + 1) / 2 + 1 for row in range(len(fused))]
    a_part, biases = 5 * (2 * wide * 4), fused.numel() * 4
    assert live.most <= max(a_part, biases) + wide, "SGLang's two products, their choice and a mask beside a part"


@pytest.fixture(scope="module")
def sglang_once(sglang):
    """SGLang's classes, for all examples."""


@pytest.mark.parametrize("comes_again", [False, True])
@settings(max_examples=60)
@given(params=st.lists(PARAMS, min_size=1, max_size=3), data=st.data())
def test_a_request_that_begins_again_goes_on_with_its_penalties(sglang_once, comes_again, params, data):
    """Kills: penalties that forget what was written before a retraction, or count it twice, and a minimum that is held
    to once more. SGLang's own forget.

    With overlap the first step counts the last token once more: then all is as after one more step.
    """
    from sgl_proxythinker.guards.written_before import count_written

    reqs = [Request(one, 3, data.draw(st.lists(TOKENS, max_size=6), label="written")) for one in params]
    if comes_again:  # each has written something, or it would not be a decode step's
        for one in reqs:
            one.output_ids = one.output_ids or [data.draw(TOKENS)]
    logits = torch.linspace(-2, 2, len(reqs) * V).reshape(len(reqs), V)
    made = orchestrator_of(reqs)
    count_written(made, reqs, comes_again)
    if comes_again:
        made.cumulate_output_tokens(torch.tensor([one.output_ids[-1] for one in reqs]))
        for one in reqs:  # the prefill's own token counts for the minimum by then
            one.sampling_params.min_new_tokens -= 1
    wanted = sglangs(reqs, [one.output_ids for one in reqs], logits)
    torch.testing.assert_close(shaped(made, logits), wanted, rtol=1e-6, atol=1e-6)
    _KEPT.clear()
