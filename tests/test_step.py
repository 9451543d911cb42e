"""Laws of a step's inputs: for which rows the small models run, and how strongly each is guided."""

from __future__ import annotations

import dataclasses
from itertools import product
from types import SimpleNamespace

import pytest
import torch

from roster import SMALL
from servers import ON_GPU
from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.guidance import CARRIED, Contrast, Defaults, Guidance, read_guidance, readers_of
from sgl_proxythinker.requests.tokenized import admit_tokenized
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT, Role

DEVICE = "cuda" if ON_GPU else "cpu"
DEFAULT = 0.5
APART = Guidance().tree_key(None)


@pytest.fixture
def inputs(sglang):
    from sgl_proxythinker.step.plan import StepInputs

    return StepInputs(SMALL, DEVICE)


def req(alpha=None, key=None, **params):
    """What of SGLang's `Req` is read, of a request that was admitted."""
    params |= {} if alpha is None else {"proxy_alpha": alpha}
    carried = {CARRIED: read_guidance(params, Defaults(DEFAULT))}
    return SimpleNamespace(rid="a", sampling_params=SimpleNamespace(custom_params=carried), extra_key=key)


def traced(alpha, key=None):
    return req(alpha, key, proxy_trace=True)


# Each row of a step, the weights of expert and amateur, and whether the small models run for it.
ROWS = {
    "guided": (req(1.5), (1.5, 1.5), True),
    "the server's alpha": (req(), (DEFAULT, DEFAULT), True),
    "without the expert": (req(0.0, proxy_amateur_alpha=2.0), (0.0, 2.0), True),
    "alpha 0 with a key of its own": (req(0.0, Guidance().tree_key("mine")), (0.0, 0.0), False),
    "guided with a key of its own": (req(-1.0, "mine"), (-1.0, -1.0), True),
    "alpha 0": (req(0.0, APART), (0.0, 0.0), False),
    "alpha 0, traced": (traced(0.0), (0.0, 0.0), True),
    "guided, traced": (traced(2.0), (2.0, 2.0), True),
    # Its tokens enter the common part of the tree, so all three models must have read them.
    "alpha 0 in the common part": (req(0.0), (0.0, 0.0), True),
}


def step_of(inputs, reqs, everyone=False, each=1):
    with inputs.of(reqs, everyone, each) as step:
        assert inputs.current is step
        return step


def ran(step):
    """The requests that the small models run for."""
    assert set(step.runs) in (set(), set(SMALL)) and len({id(requests) for requests in step.runs.values()}) <= 1
    return step.runs[SMALL[0]].index if step.runs else []


def weights_of(step):
    """[(expert's, amateur's)] of each row."""
    assert step.pairs in ((), (("expert", "amateur"),))
    return list(zip(*step.weights[0].tolist(), strict=True)) if step.pairs else [(0.0, 0.0)] * len(step.owner)


@pytest.mark.parametrize("order", [1, -1])
def test_the_small_models_run_for_rows_that_ask_for_them_or_share_their_prefix(inputs, order):
    reqs, weights, needed = zip(*list(ROWS.values())[::order], strict=True)
    step = step_of(inputs, reqs)
    assert step.size == len(reqs)
    assert weights_of(step) == list(weights) and step.weights.is_contiguous()
    assert ran(step) == [row for row, needs in enumerate(needed) if needs]
    wanted = [row for row, name in enumerate(list(ROWS)[::order]) if name.endswith("traced")]
    [told] = step.traced
    assert told.pair == SMALL and told.rows[BASE].tolist() == wanted
    for role in SMALL:
        assert [ran(step)[place] for place in told.rows[role]] == wanted
    assert step.logits_rows() == {BASE: len(reqs), **dict.fromkeys(SMALL, sum(needed))}


def test_a_request_may_have_several_rows(inputs):
    """Kills: rows of one request that are apart, weights by request, and a small model's row of another offset."""
    step = step_of(inputs, [req(0.0, APART), req(1.5), traced(-1.0)], each=3)
    assert step.owner == [0, 0, 0, 1, 1, 1, 2, 2, 2] and step.size == 3
    assert weights_of(step) == [(0.0, 0.0)] * 3 + [(1.5, 1.5)] * 3 + [(-1.0, -1.0)] * 3
    assert step.runs[EXPERT].rows == [-1, -1, -1, 0, 1, 2, 3, 4, 5] and ran(step) == [1, 2]
    [told] = step.traced
    assert {role: rows.tolist() for role, rows in told.rows.items()} == {
        BASE: [6, 7, 8], EXPERT: [3, 4, 5], AMATEUR: [3, 4, 5]
    }  # fmt: skip
    assert step.logits_rows() == {BASE: 9, EXPERT: 6, AMATEUR: 6}


def test_models_run_for_the_requests_that_each_of_them_read(sglang):
    """A roster of more than two small models: an expert that no row reads does not run."""
    from sgl_proxythinker.step.plan import StepInputs

    math, charts = Role("math"), Role("charts")
    inputs = StepInputs((math, charts, AMATEUR), DEVICE)
    asked = [
        Guidance((Contrast("math", "amateur", 1.0, 1.0),)),
        Guidance(),
        Guidance((Contrast("math", "amateur", 0.5, 0.5), Contrast("charts", "amateur", 2.0, 0.0))),
    ]
    step = inputs.on_device(asked, [guidance.reads for guidance in asked])
    assert {role: requests.index for role, requests in step.runs.items()} == {
        math: [0, 2],
        charts: [2],
        AMATEUR: [0, 2],
    }
    assert step.runs[math] is step.runs[AMATEUR], "the same requests are selected once"
    assert step.pairs == (("math", "amateur"), ("charts", "amateur"))
    assert step.weights.tolist() == [[[1, 0, 0.5], [1, 0, 0.5]], [[0, 0, 2], [0, 0, 0]]]
    assert step.laws == (None, None)
    without = inputs.on_device(asked[:2], [guidance.reads for guidance in asked[:2]])
    assert list(without.runs) == [math, AMATEUR] and without.logits_rows() == {BASE: 2, math: 1, AMATEUR: 1}


def test_pairs_stand_in_the_order_of_the_roster_whoever_is_first(sglang):
    """Kills: sums that are rounded otherwise beside other requests."""
    from sgl_proxythinker.step.plan import StepInputs

    inputs = StepInputs((EXPERT, AMATEUR, Role("math"), Role("charts")), DEVICE)
    pairs = {"expert": "amateur", "math": "amateur", "charts": "amateur"}
    both = read_guidance({"proxy_experts": {"charts": 0.3, "math": 0.4}}, Defaults(), pairs)
    charts = read_guidance({"proxy_expert": "charts", "proxy_alpha": 1.0}, Defaults(), pairs)
    for asked in ([both], [both, charts], [charts, both]):
        step = inputs.on_device(asked, [guidance.reads for guidance in asked])
        assert [plus for plus, _ in step.pairs] == ["math", "charts"]
        place = asked.index(both)
        assert step.weights[:, 0, place].tolist() == pytest.approx([0.4, 0.3])


def test_rows_of_each_expert_have_its_law_and_its_trace(sglang):
    """Kills: a law or a trace of one expert's rows that reads another's logits, or steers by another too."""
    from sgl_proxythinker.step.law_rows import NUMBERS
    from sgl_proxythinker.step.plan import StepInputs

    math = Role("math")
    inputs = StepInputs((EXPERT, AMATEUR, math), DEVICE)
    law = {"kind": "schedule", "points": [[0, 2.0], [9, 0.0]]}
    pairs = {"expert": "amateur", "math": "amateur"}
    asked = [
        read_guidance({"proxy_law": law}, Defaults(), pairs),
        read_guidance({"proxy_expert": "math", "proxy_law": law, "proxy_trace": True}, Defaults(), pairs),
        read_guidance({"proxy_expert": "math", "proxy_alpha": 0.0, "proxy_trace": True}, Defaults(), pairs),
        read_guidance({"proxy_alpha": 1.0, "proxy_trace": True}, Defaults(), pairs),
    ]
    everyone = [guidance.reads | {"expert"} for guidance in asked]  # as under speculation
    step = inputs.on_device(asked, everyone, prompt_tokens=[5] * 4)
    assert step.pairs == (SMALL, ("math", "amateur"))
    scheduled = [laws.numbers[:, NUMBERS].isfinite().tolist() for laws in step.laws]
    assert [laws.pair for laws in step.laws] == [SMALL, ("math", "amateur")]
    assert scheduled == [[True, False, False, False], [False, True, False, False]]
    assert [rows[1].item() for rows in step.laws[1].model_rows] == [0, 1]
    traced = [(told.pair, told.rows[BASE].tolist()) for told in step.traced]
    assert traced == [(("math", "amateur"), [1, 2]), (SMALL, [3])]
    assert step.runs[math].index == [1, 2] and step.runs[EXPERT].index == [0, 1, 2, 3]


def test_no_row_needs_them(inputs):
    step = step_of(inputs, [req(0.0, APART)] * 3)
    assert step.runs == {} and step.pairs == () and step.traced == () and step.logits_rows() == {BASE: 3}


def test_where_prompt_logprobs_are_taken_on_every_rank_they_run_for_all_rows(inputs):
    reqs = [req(0.0, APART), req(1.0), req(0.0, APART)]
    step = step_of(inputs, reqs, everyone=True)
    assert ran(step) == [0, 1, 2] and step.runs[EXPERT].rows == [0, 1, 2]
    assert weights_of(step) == [(0.0, 0.0), (1.0, 1.0), (0.0, 0.0)], "which changes no answer"
    assert ran(step_of(inputs, reqs)) == [1]


@pytest.mark.parametrize("row", [req(1.0, APART), traced(0.0, APART), req(None, APART)])
@pytest.mark.parametrize("everyone", [False, True])
def test_a_row_that_is_kept_apart_and_guided_is_no_step(inputs, row, everyone):
    """Its prefix may be one that the small models have not read: a wrong answer in place of an error."""
    with pytest.raises(RuntimeError, match="has a prefix that only base read"):
        step_of(inputs, [req(1.0), row], everyone)
    with pytest.raises(RuntimeError, match="outside of forward_batch_generation"):
        _ = inputs.current


def test_outside_of_a_step_there_is_none(inputs):
    step_of(inputs, [req(1.0)])
    with pytest.raises(RuntimeError, match="outside of forward_batch_generation"):
        _ = inputs.current
    with pytest.raises(ZeroDivisionError), inputs.of([req(1.0)], False):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="outside of forward_batch_generation"):
        _ = inputs.current


def test_a_step_is_copied_to_the_device_when_it_differs_from_the_last(inputs):
    plain, guided = req(0.0, APART), req(1.0)
    first = step_of(inputs, [guided, plain])
    assert step_of(inputs, [req(1.0), req(0.0, Guidance().tree_key("mine"))]) is first, "the same was asked for"
    steps = [
        step_of(inputs, *asked)
        for asked in (
            ([plain, guided], False),
            ([guided, plain], False),
            ([guided, req(0.0)], False),  # the same strengths, another need
            ([guided, traced(0.0)], False),
            ([guided, plain], True),
            ([guided, plain, plain], False),
            ([guided, req(0.0, proxy_amateur_alpha=1.0)], False),
            ([guided, req(0.0, proxy_amateur_alpha=1.0)], False, 2),
        )
    ]
    assert all(one is not other for one, other in zip([first, *steps], steps, strict=False))
    assert [ran(step) for step in steps] == [[1], [0], [0, 1], [0, 1], [0, 1], [0], [0, 1], [0, 1]]
    assert [not step.traced for step in steps] == [True, True, True, False, True, True, True, True]


def test_a_request_that_was_not_admitted_is_no_step(inputs):
    """Guided by a default that nobody asked for, or by none: a wrong answer in place of an error."""
    for params in (None, {}, {"proxy_alpha": 1.0}):
        stranger = SimpleNamespace(rid="b", sampling_params=SimpleNamespace(custom_params=params), extra_key=None)
        with pytest.raises(RuntimeError, match="request b came to a step without its guidance"):
            step_of(inputs, [req(1.0), stranger])


def test_what_msgpack_makes_of_it_is_read_the_same(inputs):
    """It knows no tuples."""
    carried = {CARRIED: [[["expert", "amateur", 1.5, 0.5]], ["expert", "amateur"], None, None]}
    row = SimpleNamespace(rid="a", sampling_params=SimpleNamespace(custom_params=carried), extra_key=None)
    step = step_of(inputs, [row])
    assert (weights_of(step), step.traced[0].rows[BASE].tolist()) == ([(1.5, 0.5)], [0])


# The main process keeps requests apart, the scheduler believes it


@pytest.mark.parametrize("key", [None, "", "mine", "a|b"])
@pytest.mark.parametrize("default", [0.0, 0.5])
def test_what_the_front_admits_the_step_understands(sglang, key, default):
    config = ProxyConfig(expert_path="E", amateur_path="A", alpha=default)
    for alpha, amateur_alpha, trace in product((None, 0, 0.0, -0.0, 1.5), (None, 0.0, 1.0), (None, False, True)):
        given = {"proxy_alpha": alpha, "proxy_amateur_alpha": amateur_alpha, "proxy_trace": trace}
        given = {name: value for name, value in given.items() if value is not None} or None
        wanted = read_guidance(given, Defaults(default))
        asked = None if given is None else {CARRIED: wanted}  # None: SGLang's own, for its health
        sampling_params = SimpleNamespace(custom_params=asked)
        tokenized = SimpleNamespace(
            sampling_params=sampling_params, extra_key=key, return_logprob=False, logprob_start_len=-1, input_ids=[1]
        )
        admit_tokenized(SimpleNamespace(), tokenized, config)
        assert sampling_params.custom_params == {CARRIED: wanted}, "what was read is written down"
        readers = readers_of(tokenized.extra_key)
        assert (readers == {"base"}) == (wanted.is_base_alone and not trace)
        assert wanted.reads <= readers
        assert tokenized.extra_key == wanted.tree_key(key)


@pytest.mark.parametrize("each", [1, 4])
def test_guided_rows_are_those_of_requests_that_small_models_steer(inputs, each):
    """Kills: requests in place of rows, and readers, which a trace has at alpha 0 too, in place of what steers."""
    with inputs.of([req(0.0, APART), req(1.5), req(-0.5), req(0.0)], False, each):
        assert inputs.guided_rows == 2 * each
    with inputs.of([req(0.0)], False, each):
        assert inputs.guided_rows == 0


def test_rows_that_cannot_be_told_apart_make_the_small_models_run_for_all(inputs, caplog):
    """Kills: a server that ends, or rows taken by guess, for a field that nobody knows; a warning in every step."""
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch

    from sgl_proxythinker.step.worker import ProxyWorker

    worker = SimpleNamespace(inputs=inputs, _warned_of=set())
    known = dict.fromkeys(field.name for field in dataclasses.fields(ForwardBatch))
    batches = [ForwardBatch(**known | {"dcp_kv_mask": mask}) for mask in (None, torch.ones(2), torch.zeros(2))]
    reqs = [req(0.0, APART), req(1.5), req(0.0, APART)]
    with inputs.of(reqs, False) as asked:
        steps = [ProxyWorker._dividable(worker, batch) for batch in batches]
    assert steps[0] is asked and ran(asked) == [1]
    for step in steps[1:]:
        assert ran(step) == [0, 1, 2] and step.runs[EXPERT].rows == [0, 1, 2]
        assert weights_of(step) == weights_of(asked) == [(0.0, 0.0), (1.5, 1.5), (0.0, 0.0)]
    assert [record.getMessage().count("dcp_kv_mask") for record in caplog.records] == [1]
