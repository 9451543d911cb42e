"""Penalties along a chain are those that SGLang would apply at each of its positions, were it alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_proxythinker.speculation.penalties import chain_penalties, is_penalized

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
REQUESTS = st.lists(st.tuples(PARAMS, st.lists(TOKENS, min_size=1, max_size=4)), min_size=1, max_size=3)


def req(params: dict, output_ids: list[int]) -> SimpleNamespace:
    """What of SGLang's `Req` is read."""
    tokenizer = SimpleNamespace(eos_token_id=END, additional_stop_token_ids={4})
    return SimpleNamespace(sampling_params=SimpleNamespace(**params), output_ids=output_ids, tokenizer=tokenizer)


def sglangs(reqs: list[SimpleNamespace], written: list[list[int]], logits: torch.Tensor) -> torch.Tensor:
    """[B, V] what SGLang makes of `logits` after these tokens of each request, taken one a step."""
    from sglang.srt.sampling import penaltylib
    from sglang.srt.sampling.penaltylib.repetition_penalty import apply_scaling_penalties

    kinds = (
        penaltylib.BatchedFrequencyPenalizer,
        penaltylib.BatchedMinNewTokensPenalizer,
        penaltylib.BatchedPresencePenalizer,
        penaltylib.BatchedRepetitionPenalizer,
    )
    rows = []
    for one, tokens, row in zip(reqs, written, logits, strict=True):
        batch = SimpleNamespace(reqs=[one], device="cpu")
        orchestrator = penaltylib.BatchedPenalizerOrchestrator(V, _Batch(batch), set(kinds))
        for token in tokens:
            orchestrator.cumulate_output_tokens(torch.tensor([token]))
        row = row.clone()[None]
        orchestrator.accumulate_additive_penalties(row)
        if (scaling := orchestrator.accumulate_scaling_penalties()) is not None:
            apply_scaling_penalties(row, scaling)
        rows.append(row[0])
    return torch.stack(rows)


_KEPT = []


class _Batch:
    """A batch that a weak reference can name."""

    def __init__(self, batch: SimpleNamespace):
        self.reqs, self.device = batch.reqs, batch.device
        _KEPT.append(self)


@settings(deadline=None, max_examples=60)
@given(asked=REQUESTS, drafts=st.lists(TOKENS, min_size=3, max_size=3), seed=st.integers(0, 9))
def test_each_position_has_what_sglang_would_apply_there(sglang_once, asked, drafts, seed):
    """Kills: one token a step, drafts of another request, a minimum counted from the last step, the base's own ends."""
    from sglang.srt.sampling.penaltylib.repetition_penalty import apply_scaling_penalties

    reqs = [req(params, written) for params, written in asked]
    chains = torch.tensor([[one.output_ids[-1], *drafts[row:], *drafts[:row]] for row, one in enumerate(reqs)])
    each = chains.shape[1]
    logits = torch.randn(len(reqs) * each, V, generator=torch.Generator().manual_seed(seed)) * 3
    additive, scaling = chain_penalties(reqs, chains, V)
    told = logits.clone()
    if additive is None:
        assert not any(map(is_penalized, reqs))
    else:
        told += additive
        apply_scaling_penalties(told, scaling)
    for offset in range(each):
        written = [[*one.output_ids, *chain[1 : offset + 1]] for one, chain in zip(reqs, chains.tolist(), strict=True)]
        wanted = sglangs(reqs, written, logits[offset::each])
        torch.testing.assert_close(told[offset::each], wanted, rtol=1e-6, atol=1e-6)
    _KEPT.clear()


@pytest.fixture(scope="module")
def sglang_once(sglang):
    """SGLang's classes, for all examples."""
