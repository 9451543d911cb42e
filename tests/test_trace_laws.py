"""Laws of a trace's numbers and of their way to the host."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from device_sync import no_waiting
from roster import SMALL, TRIPLE
from servers import ON_GPU
from sgl_proxythinker.guidance import TRACE
from sgl_proxythinker.programs.reference_hf import jensen_shannon
from sgl_proxythinker.requests.trace_format import FIELDS, as_lists
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT
from sgl_proxythinker.step.logits import ShardedLogits, WeightedPair
from sgl_proxythinker.step.rows import SelectedRequests
from sgl_proxythinker.step.trace import TracedRows, attach_evidence, publish_trace, trace_tokens

DEVICE = "cuda" if ON_GPU else "cpu"
V = 50  # ids that the tokenizer knows


WEIGHTS = torch.tensor([[0.5, 1.0, 0.0, -2.0, 1.5], [0.5, 0.0, 0.0, 1.0, 1.5]])  # expert's and amateur's of each row


@pytest.fixture
def logits():
    """Base, expert, amateur and fused of 5 rows, with padding that is larger than anything else."""
    generator = torch.Generator().manual_seed(0)
    models = torch.randn(4, 5, V + 14, generator=generator) * 5
    models[3] = models[0] + WEIGHTS[0][:, None] * models[1] - WEIGHTS[1][:, None] * models[2]
    models[:, :, V:] = 100.0
    return models.to(DEVICE)


def selected(requests, size, each=1):
    return SelectedRequests.of([request in requests for request in range(size)], DEVICE, each)


def attach(output, logits, rows, vocab_size, weights=WEIGHTS, owner=None):
    """`attach_evidence` of logits [4, N, V]: base, expert, amateur, fused."""
    *models, fused = logits
    sharded = {role: ShardedLogits.whole(of_model) for role, of_model in zip(TRIPLE, models, strict=True)}
    every = selected(range(len(fused)), len(fused))
    traced = TracedRows.of(SMALL, rows, dict.fromkeys(SMALL, every), DEVICE)
    pair = WeightedPair(sharded[EXPERT], sharded[AMATEUR], weights.to(DEVICE))
    with no_waiting():
        attach_evidence(output, sharded, {SMALL: pair}, fused, [traced], owner or list(range(len(fused))), vocab_size)


def step(logits, rows, tokens, delayed=False, owner=None, reqs=None, accept_lens=None):
    """What the worker does of a step in which `rows` ask; what SGLang would take to the requests."""
    output = SimpleNamespace(customized_info=None)
    result = SimpleNamespace(logits_output=output, next_token_ids=None, delay_sample_func=None, accept_lens=None)

    def sample():
        logits[3].fill_(torch.nan)  # temperature, penalties and masks, in place
        result.next_token_ids = tokens
        return result

    attach(output, logits, rows, V, owner=owner)
    with no_waiting():
        if delayed:
            result.delay_sample_func = sample
            trace_tokens(result)
            assert result.delay_sample_func() is result
        else:
            trace_tokens(sample())
        logits.fill_(torch.nan)  # a graph's next replay
    if accept_lens:
        result.accept_lens, result.copy_done = torch.tensor(accept_lens), None
    publish_trace(SimpleNamespace(reqs=reqs or [None] * len(tokens)), result)
    return output.customized_info["proxy_trace"]


@pytest.mark.parametrize("delayed", [False, True], ids=["at once", "after a grammar's mask"])
def test_each_row_that_asks_gets_the_numbers_of_its_own_token(logits, delayed):
    """Kills: another row's token, padding in the sum, logits read after they were overwritten."""
    logprobs = logits[:, :, :V].double().log_softmax(-1).cpu()
    tokens = [7, 0, 49, 3, 21]
    entries = step(logits, [1, 4], torch.tensor(tokens, device=DEVICE), delayed)
    assert [entry is not None for entry in entries] == [False, True, False, False, True]
    for row in (1, 4):
        told = dict(zip(FIELDS, entries[row], strict=True))
        wanted = logprobs[:, row, tokens[row]].tolist()
        names = ("base_logprob", "expert_logprob", "amateur_logprob", "fused_logprob")
        assert [told[name] for name in names] == pytest.approx(wanted, abs=1e-5)
        top1 = int(logprobs[0, row].argmax())
        assert (told["token_id"], told["base_top1_id"]) == (tokens[row], top1)
        assert told["flipped"] is (tokens[row] != top1)
        assert told["alpha"] == WEIGHTS[0, row]
        base, expert, amateur = (logprobs[model, row] for model in range(3))
        assert told["base_entropy_nats"] == pytest.approx(-(base.exp() * base).sum().item(), abs=1e-5)
        assert told["js_nats"] == pytest.approx(jensen_shannon(expert, amateur), abs=1e-5)
        assert told["base_amateur_js_nats"] == pytest.approx(jensen_shannon(base, amateur), abs=1e-5)


def test_a_flip_is_a_token_that_is_not_the_bases_first(logits):
    firsts = logits[0, :, :V].argmax(-1)
    assert [entry[FIELDS.index("flipped")] for entry in step(logits.clone(), list(range(5)), firsts)] == [False] * 5
    others = (firsts + 1) % V
    assert [entry[FIELDS.index("flipped")] for entry in step(logits, list(range(5)), others)] == [True] * 5


def test_ids_of_a_large_vocabulary_are_exact():
    """Ids travel beside floats: float32 would round them past 16.7 million, float16 past 2,048."""
    width = 152_064
    logits = torch.zeros(4, 1, width, device=DEVICE)
    output = SimpleNamespace(customized_info={"theirs": [1]})
    logits[0, 0, width - 2] = 1.0
    attach(output, logits, [0], width, torch.zeros(2, 1))
    tokens = torch.tensor([width - 1], dtype=torch.int32, device=DEVICE)
    result = SimpleNamespace(logits_output=output, next_token_ids=tokens, delay_sample_func=None, accept_lens=None)
    trace_tokens(result)
    publish_trace(SimpleNamespace(reqs=[None]), result)
    [entry] = output.customized_info["proxy_trace"]
    assert (entry[0], entry[FIELDS.index("base_top1_id")]) == (width - 1, width - 2)
    assert output.customized_info["theirs"] == [1], "what others send along stays"


def test_a_row_of_few_that_the_small_models_ran_for_is_found_there(logits):
    """Kills: the base's place of a row taken for the small models' place, and the other way round."""
    ran = [1, 3, 4]
    requests = selected(ran, 5)
    base, *proxies, fused = logits
    sharded = {BASE: ShardedLogits.whole(base)}
    for role, of_model in zip((EXPERT, AMATEUR), proxies, strict=True):
        # Their columns in two shards, as two ranks send them.
        sharded[role] = ShardedLogits(torch.stack(of_model[ran, : V + 2].chunk(2, dim=1)))
    traced = TracedRows.of(SMALL, [1, 4], dict.fromkeys(SMALL, requests), DEVICE)
    output = SimpleNamespace(customized_info=None)
    places = [requests.rows_on_device] * 2
    pair = WeightedPair(sharded[EXPERT], sharded[AMATEUR], WEIGHTS.to(DEVICE), *places)
    attach_evidence(output, sharded, {SMALL: pair}, fused, [traced], list(range(5)), V)
    tokens = torch.tensor([7, 0, 49, 3, 21], device=DEVICE)
    told = output.proxy_trace[1][0].of_tokens(tokens)
    wanted = logits[:, [1, 4], :V].double().log_softmax(-1)[:, [0, 1], [0, 21]].T
    assert torch.allclose(told[:, 2:6], wanted, atol=1e-5)


def test_a_row_that_nothing_steers_is_told_as_the_bases(logits):
    """Kills a fused number of a pair that does not steer the row: of requests at alpha 0, alone and beside others."""
    logits[3] = logits[0]
    output = SimpleNamespace(customized_info=None)
    attach(output, logits, [0, 1, 2, 3, 4], V, weights=torch.zeros(2, 5))
    told = output.proxy_trace[1][0].of_tokens(torch.tensor([7, 0, 49, 3, 21], device=DEVICE))
    assert torch.equal(told[:, 2], told[:, 5])


def test_each_row_of_a_request_is_told_in_order(logits):
    """Kills: one entry a request, entries of another request's rows, and the last before the earlier ones."""
    tokens = [7, 0, 49, 3, 21]
    alone = step(logits.clone(), list(range(5)), torch.tensor(tokens, device=DEVICE))
    reqs = [SimpleNamespace(customized_info=info) for info in (None, None, {TRACE: ["before"]})]
    entries = step(logits, [0, 1, 3, 4], torch.tensor(tokens, device=DEVICE), owner=[0, 0, 1, 2, 2], reqs=reqs)
    assert entries == [alone[1], None, alone[4]]
    assert [req.customized_info for req in reqs] == [{TRACE: [alone[0]]}, None, {TRACE: ["before", alone[3]]}]


def running(ended: bool = False, is_retracted: bool = False) -> SimpleNamespace:
    return SimpleNamespace(customized_info=None, finished=lambda: ended, is_retracted=is_retracted)


def test_who_ended_or_was_retracted_while_its_chain_ran_is_told_nothing_of_it(logits):
    """SGLang gives it no token either. Kills: a trace of a request that goes on later, shifted by what it never got."""
    tokens = torch.tensor([7, 0, 49, 3, 21], device=DEVICE)
    reqs = [running(ended=True), running(is_retracted=True), running()]
    entries = step(logits, list(range(5)), tokens, owner=[0, 0, 1, 2, 2], reqs=reqs, accept_lens=[2, 1, 2])
    assert entries[:2] == [None, None] and entries[2] is not None
    assert [len((req.customized_info or {}).get(TRACE, [])) for req in reqs] == [0, 0, 1]


def test_of_a_chain_the_tokens_that_were_accepted_are_told(logits):
    """Kills: a token that no request got, and a length of another request's chain."""
    tokens = torch.tensor([7, 0, 49, 3], device=DEVICE)
    alone = step(logits.clone()[:, :4], list(range(4)), tokens)
    for lengths in ([1, 2], [2, 1]):
        reqs = [running(), running()]
        entries = step(
            logits.clone()[:, :4], list(range(4)), tokens, owner=[0, 0, 1, 1], reqs=reqs, accept_lens=lengths
        )
        assert entries == [alone[lengths[0] - 1], alone[2 + lengths[1] - 1]]
        earlier = [[], alone[:1]][lengths[0] - 1], [[], alone[2:3]][lengths[1] - 1]
        assert [(req.customized_info or {}).get(TRACE, []) for req in reqs] == list(earlier)


def test_a_step_in_which_nobody_asks_is_left_alone():
    for output in (SimpleNamespace(customized_info=None), None):
        publish_trace(SimpleNamespace(reqs=[None]), SimpleNamespace(logits_output=output))
        assert output is None or output.customized_info is None


def test_lists_of_no_token_are_empty():
    assert as_lists([]) == {name: [] for name in FIELDS}
    assert as_lists([tuple(range(11)), tuple(range(11, 22))])["js_nats"] == [7, 18]
