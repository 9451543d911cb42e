"""Weights that laws say, row by row, are those of their formulas; rows without a law keep theirs.

Each law of the weights is asked of the specification in torch and of the kernel, which runs in triton's interpreter
without a GPU, in a process of its own (as in test_fusion).
"""

import math
import os
import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders

from interpreted import assert_kernel_obeys
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guidance import ALPHA as PROXY_ALPHA
from sgl_proxythinker.guidance import AMATEUR_ALPHA, CARRIED, LAW, Defaults, Guidance, read_guidance, said_over
from sgl_proxythinker.laws import MAX_POINTS, Divergence, Law, Marker, read_law
from sgl_proxythinker.programs.reference_hf import jensen_shannon, ruled
from sgl_proxythinker.requests.admission import refuse_unread_markers
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT
from sgl_proxythinker.step.law_rows import LawRows
from sgl_proxythinker.step.law_strengths import law_weights, law_weights_in_torch
from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.step.rows import SelectedRequests

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
VOCAB, PADDED = 211, 224
ALPHA = 0.7
MARKER = {"text": "</think>", "alpha": -1.5}
LAWS = [
    {"kind": "schedule", "points": [[0, 2.0], [4, 0.0], [10, -1.0]]},
    {"kind": "schedule", "points": [[3, 1.5]]},
    {"kind": "divergence", "warmup_tokens": 0, "low": -1.0, "scale": 3.0},
    {"kind": "divergence", "warmup_tokens": 4, "low": 0.01, "high": 0.02},
    {"kind": "entropy", "above": 2.5},
    [{"kind": "schedule", "points": [[0, 0.0], [8, 4.0]]}, {"kind": "entropy", "above": 3.0}],
    [{"kind": "divergence", "warmup_tokens": 2, "low": -1.0}, {"kind": "entropy", "above": 2.0}],
    {"kind": "schedule", "after": MARKER},
    {"kind": "schedule", "points": [[0, 1.0], [5, 0.0]], "after": MARKER | {"alpha": 2.5}},
    [{"kind": "schedule", "after": MARKER}, {"kind": "entropy", "above": 2.0}],
]


def logits_of_three(rows: int, seed: int) -> dict:
    random = torch.Generator().manual_seed(seed)
    # Rows from nearly uniform to nearly sure, so that entropies lie on both sides of the laws' bounds.
    spread = torch.linspace(0.2, 6.0, rows)[:, None]
    made = {role: torch.randn(rows, PADDED, generator=random) * spread for role in (BASE, EXPERT, AMATEUR)}
    for logits in made.values():
        logits[:, VOCAB:] = 50.0  # padding, which says nothing
    return made


def kernel():
    from sgl_proxythinker.step.law_strengths_kernel import law_weights_by_kernel

    return law_weights_by_kernel


@pytest.fixture(params=["specification", "kernel"] if CUDA or INTERPRETED else ["specification"])
def served(request):
    """[2, N] weights; row n has laws[n], None for none. `past`: whether each row follows its marker."""
    compute = law_weights_in_torch if request.param == "specification" else kernel()

    def served(laws, lengths, logits, prompts, past=None, vocab_size=VOCAB, needed=None):
        ran = SelectedRequests.of(needed or [True] * len(laws), DEVICE)
        ruled_rows = {row: (read_law(law), prompts[row]) for row, law in enumerate(laws) if law is not None}
        rows = LawRows.of((EXPERT, AMATEUR), ruled_rows, {EXPERT: ran, AMATEUR: ran}, DEVICE)
        weights = torch.full((2, len(laws)), ALPHA, device=DEVICE)
        told = {role: ShardedLogits.whole(rows.to(DEVICE)) for role, rows in logits.items()}
        past_marker = None if past is None else torch.tensor(past, device=DEVICE)
        made = compute(rows, weights, torch.tensor(lengths, device=DEVICE), told, vocab_size, past_marker)
        assert (weights == ALPHA).all(), "the constant ones are read only"
        return made.cpu()

    return served


def test_every_row_has_the_weight_of_its_own_law(served):
    """Kills: rows, numbers or prompts of one law read for another's, padding read, warm-up counted from the prompt."""
    laws = [law for one in LAWS for law in (one, None)] * 4
    rows = len(laws)
    logits = logits_of_three(rows, seed=1)
    prompts = [5 + row for row in range(rows)]
    generated = [(3 * row) % 13 for row in range(rows)]
    # Rows without a marker in their law have none to follow.
    has_marker = ["after" in str(law) for law in laws]
    past = [has and row % 3 == 0 for row, has in enumerate(has_marker)]
    weights = served(laws, [p + g for p, g in zip(prompts, generated, strict=True)], logits, prompts, past)
    seen = set()
    for row, law in enumerate(laws):
        plus = minus = ALPHA
        for one in law if isinstance(law, list) else [law] if law else []:
            known = (logits[role][row, :VOCAB] for role in (BASE, EXPERT, AMATEUR))
            text = "So</think>" if past[row] else "So</thin"
            plus, minus = ruled(one, plus, minus, generated[row], *known, text)
        assert weights[:, row].tolist() == pytest.approx([plus, minus], abs=1e-5), (row, law, generated[row])
        seen.add(round(plus, 3))
    assert len(seen) > 14 and 0.0 in seen, "the laws say different strengths"
    assert {True, False} == {past[row] for row in range(rows) if has_marker[row]}


def test_equal_expert_and_amateur_are_no_reason_to_steer(served):
    """Kills: the base's divergence counted for the expert."""
    logits = logits_of_three(3, seed=2)
    logits[EXPERT] = logits[AMATEUR].clone()
    weights = served([{"kind": "divergence", "warmup_tokens": 0}] * 3, [9, 9, 9], logits, [3, 3, 3])
    assert not weights.any()


def test_a_bound_above_any_entropy_is_the_base_and_one_below_the_constant(served):
    logits = logits_of_three(2, seed=3)
    above = [{"kind": "entropy", "above": math.log(VOCAB)}, {"kind": "entropy", "above": -0.1}]
    assert served(above, [4, 4], logits, [1, 1]).tolist() == [[0.0, pytest.approx(ALPHA)]] * 2


def test_a_flat_schedule_is_the_constant(served):
    logits = logits_of_three(3, seed=4)
    flat = {"kind": "schedule", "points": [[0, ALPHA], [5, ALPHA]]}
    assert torch.equal(served([flat] * 3, [4, 8, 90], logits, [4, 4, 4]), torch.full((2, 3), ALPHA))


def test_a_row_that_no_model_says_anything_of_has_no_divergence():
    """The measure is the logarithm's own: natural, at most log 2."""
    one, other = torch.tensor([40.0, 0.0]), torch.tensor([0.0, 40.0])
    assert jensen_shannon(one, other) == pytest.approx(math.log(2))


@pytest.mark.parametrize("law", LAWS)
def test_what_a_request_writes_is_read_and_told_as_it_is(law):
    """Kills: a law that processes compare in another form than it is carried in, or that is told differently."""
    guidance = read_guidance({LAW: law}, Defaults(ALPHA))
    assert guidance.law is not None and read_law(guidance.as_params()[LAW]) == guidance.law
    carried = [[list(contrast) for contrast in guidance.contrasts], None, as_msgpack_gives(guidance.law), None, None]
    assert Guidance.of_carried(carried) == guidance and {guidance}


def test_a_marker_lets_a_strength_begin_and_end():
    """Kills: small models that don't read what comes before the marker, and ones that read for nothing."""

    def steers(alpha: float, after: float, **points) -> bool:
        law = {"kind": "schedule", "after": {"text": "</think>", "alpha": after}, **points}
        return not Guidance.of(alpha, law=read_law(law)).is_base_alone

    assert steers(0.0, 0.2) and steers(0.5, 0.0) and not steers(0.0, -0.0)
    flat = {"points": [[0, 0.0], [4, 0.0]]}
    assert steers(0.5, 0.2, **flat) and not steers(0.5, 0.0, **flat), "points leave the constant nothing to say"


def test_before_a_marker_without_points_the_constant_counts():
    law = {"kind": "schedule", "after": MARKER}
    default = Defaults(0.5, law=read_law({"kind": "schedule", "points": [[0, 1.0]]}))
    told = read_guidance({LAW: law, PROXY_ALPHA: 0.3}, default).as_params()
    assert told == {PROXY_ALPHA: 0.3, AMATEUR_ALPHA: 0.3, LAW: [law]}
    assert said_over({PROXY_ALPHA: 0.3}, {LAW: law}) == {PROXY_ALPHA: 0.3, LAW: law}, (
        "a backend's own strength counts before it"
    )
    with pytest.raises(RequestError, match="leave proxy_alpha out"):
        read_guidance({LAW: law | {"points": [[0, 1.0]]}, PROXY_ALPHA: 0.3}, default)
    with pytest.raises(RequestError, match="one strength for both"):
        read_guidance({LAW: law, PROXY_ALPHA: 0.3, AMATEUR_ALPHA: 0.0}, default)


@pytest.mark.parametrize(
    ("after", "sentence"),
    [
        ({"text": "", "alpha": 1}, "after.text is '': it has 0 bytes in UTF-8: send a text of 1 to 64."),
        ({"text": "€" * 22, "alpha": 1}, "it has 66 bytes in UTF-8"),
        ({"text": "\ud83d", "alpha": 1}, "it has half of a character"),
        ({"text": 7, "alpha": 1}, "after.text is 7: it should be a valid string."),
        ({"text": "</think>", "alpha": 11}, "after.alpha is 11"),
        ({"text": "</think>", "alpha": float("nan")}, "after.alpha"),
        ({"text": "</think>"}, "after.alpha is missing"),
        ({"text": "</think>", "alpha": 1, "until": 3}, "after.until is not known here"),
        ("</think>", "after is '</think>': send an object."),
        (None, "it has neither points nor after: send one of them, or both."),
    ],
)
def test_what_is_no_marker_is_refused_in_a_sentence(after, sentence):
    with pytest.raises(RequestError, match=re.escape(sentence)):
        read_guidance({LAW: {"kind": "schedule", "after": after}}, Defaults(ALPHA))


@pytest.mark.parametrize(
    ("law", "sentence"),
    [
        (
            {"kind": "entropie", "above": 0.3},
            "^proxy_law: its kind is 'entropie': there are divergence, entropy, schedule.$",
        ),
        ([{"kind": "entropy", "above": 1.0}, {"above": 0.3}], "^proxy_law: its kind is null: there are "),
        ("entropy", r"^proxy_law: it has 'entropy': send an object such as {\"kind\": \"entropy\", \"above\": 0.7}.$"),
        ({"kind": "entropy"}, "entropy.above is missing"),
    ],
)
def test_what_is_no_law_is_told_with_what_is(law, sentence):
    with pytest.raises(RequestError, match=sentence):
        read_guidance({LAW: law}, Defaults(ALPHA))


def test_a_marker_is_no_reason_to_mix_a_schedule_with_a_divergence():
    laws = [{"kind": "schedule", "after": MARKER}, {"kind": "divergence"}]
    with pytest.raises(RequestError, match="both say the strength"):
        read_guidance({LAW: laws}, Defaults(ALPHA))


@pytest.mark.parametrize("as_list", [False, True])
def test_a_marker_is_refused_where_tokens_are_not_bytes(as_list):
    """Sentencepiece writes blanks as another character, and its decoder takes the first one away."""

    def asks(said: dict) -> SimpleNamespace:
        params = {"custom_params": {CARRIED: read_guidance(said, Defaults(ALPHA))}}
        return SimpleNamespace(
            sampling_params=[{"custom_params": {CARRIED: Guidance()}}, params] if as_list else params
        )

    def tokenizer(decoder) -> SimpleNamespace:
        return SimpleNamespace(backend_tokenizer=SimpleNamespace(decoder=decoder))

    marked, other = asks({LAW: {"kind": "schedule", "after": MARKER}}), asks({LAW: LAWS[0]})
    refuse_unread_markers(marked, tokenizer(decoders.ByteLevel()))
    refuse_unread_markers(other, tokenizer(decoders.Metaspace()))
    with pytest.raises(RequestError, match="leave after out"):
        refuse_unread_markers(marked, tokenizer(decoders.Metaspace()))


def as_msgpack_gives(value):
    return [as_msgpack_gives(item) for item in value] if isinstance(value, tuple) else value


def test_the_token_after_the_warm_up_is_the_laws(served):
    """Kills: a warm-up that is one token longer or shorter."""
    logits = logits_of_three(2, seed=5)
    of_law = {"kind": "divergence", "warmup_tokens": 4, "low": 2.0, "high": 2.0}
    assert served([of_law] * 2, [13, 14], logits, [10, 10])[0].tolist() == [pytest.approx(ALPHA), 2.0]


def test_before_a_prompt_is_read_whole_nothing_is_generated(served):
    """Of a prompt in chunks. Kills: fewer tokens than none, to which no law applies."""
    of_law = {"kind": "divergence", "warmup_tokens": 0, "low": 2.0, "high": 2.0}
    assert served([of_law] * 2, [3, 10], logits_of_three(2, seed=5), [10, 10])[0].tolist() == [2.0, 2.0]


def test_models_that_ran_for_some_requests_are_read_in_their_own_rows(served):
    """Kills: the base's row, read of a model that has fewer, or one small model's rows for the other's."""
    law = {"kind": "divergence", "warmup_tokens": 0, "low": -1.0, "scale": 5.0}
    laws = [None, law, None, law, [law, {"kind": "entropy", "above": 0.5}], None]
    needed, logits = [law is not None for law in laws], logits_of_three(len(laws), seed=10)
    numbers = [9] * len(laws), [5] * len(laws)
    wanted = served(laws, numbers[0], logits, numbers[1])
    fewer = {role: rows if role == BASE else rows[needed] for role, rows in logits.items()}
    assert torch.equal(served(laws, numbers[0], fewer, numbers[1], needed=needed), wanted)
    assert len(set(wanted[0].tolist())) == 4, "three laws and the constant"


@pytest.mark.parametrize("damage", [torch.nan, torch.inf, -torch.inf])
def test_a_law_reads_what_it_asks_for_and_no_more(served, damage):
    """A damaged model is told where its word counts (NaN is no strength), and nowhere else.

    Kills: NaN that is multiplied, one that passes for a number, models that are read for a row that doesn't ask.
    """
    of_all = {"kind": "divergence", "warmup_tokens": 4, "low": 0.5, "high": 1.0}
    laws = [
        None,
        {"kind": "schedule", "points": [[0, 1.0], [8, 3.0]]},
        {"kind": "schedule", "after": MARKER},
        of_all | {"warmup_tokens": 5},
        of_all,
        {"kind": "entropy", "above": -0.1},
        [of_all, {"kind": "entropy", "above": -0.1}],
    ]
    constant, half_way = pytest.approx(ALPHA), 2.0
    healthy = [constant, half_way, -1.5, constant, 0.5, constant, 0.5]
    broken = {BASE: {4: "nan", 5: 0.0, 6: 0.0}, EXPERT: {4: "nan", 6: "nan"}, AMATEUR: {4: "nan", 6: "nan"}}
    for role, told in broken.items():
        logits = logits_of_three(len(laws), seed=6)
        # -infinity rules out an id; a row of nothing else is damaged.
        logits[role][:, slice(0, VOCAB) if damage == -torch.inf else slice(7, 8)] = damage
        plus, minus = served(laws, [14] * len(laws), logits, [10] * len(laws), [False, False, True, *[False] * 4])
        assert torch.equal(plus, minus) or torch.equal(plus.isnan(), minus.isnan())
        for row, wanted in enumerate(healthy):
            given = told.get(row, wanted)
            assert math.isnan(plus[row]) if given == "nan" else plus[row].item() == given, (role, row)


def test_an_id_that_cannot_be_drawn_counts_for_nothing(served):
    """Of any model, as -infinity or as the least of numbers. Kills: 0 * -inf, the mass of a block's first columns."""
    laws = [{"kind": "divergence", "warmup_tokens": 0, "low": -1.0}, {"kind": "entropy", "above": 1.0}] * 2
    for least in (-torch.inf, torch.finfo(torch.float32).min):
        logits = logits_of_three(len(laws), seed=7)
        logits[BASE][:, :200], logits[EXPERT][:, 3], logits[AMATEUR][:, 4:9] = least, least, least
        weights = served(laws, [9] * len(laws), logits, [5] * len(laws))
        for row, law in enumerate(laws):
            known = (logits[role][row, :VOCAB].clamp(min=-60.0) for role in (BASE, EXPERT, AMATEUR))
            assert weights[:, row].tolist() == pytest.approx(ruled(law, ALPHA, ALPHA, 4, *known, ""), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vocabulary_of_several_blocks_is_read_whole(served, dtype):
    """Kills: what an earlier block said, not brought to the scale of a later one, whichever of them is higher."""
    vocab_size, law = 30_000, {"kind": "divergence", "warmup_tokens": 0, "low": -1.0, "scale": 10.0}
    random = torch.Generator().manual_seed(9)
    made = [torch.randn(6, vocab_size, generator=random) * spread for spread in (1.0, 3.0, 2.0)]
    for rows in made:
        rows[0], rows[1] = rows[0].sort().values, rows[1].sort(descending=True).values
        rows[2, -1] = 9.0
    logits = {role: rows.to(dtype) for role, rows in zip((BASE, EXPERT, AMATEUR), made, strict=True)}
    known = [[logits[role][row].float() for role in (BASE, EXPERT, AMATEUR)] for row in range(6)]
    weights = served([law] * 6, [9] * 6, logits, [5] * 6, vocab_size=vocab_size)
    wanted = [ruled(law, ALPHA, ALPHA, 4, *of_row, "") for of_row in known]
    assert weights.T.flatten().tolist() == pytest.approx([weight for row in wanted for weight in row], abs=1e-4)
    nats = torch.special.entr(logits[BASE].double().softmax(-1)).sum(-1)
    for more, is_open in ((-1e-3, True), (1e-3, False)):
        bounds = [{"kind": "entropy", "above": float(entropy) + more} for entropy in nats]
        weights = served(bounds, [9] * 6, logits, [5] * 6, vocab_size=vocab_size)
        assert ((weights != 0) == is_open).all()


numbers = st.floats(-10.0, 10.0, width=32)


@st.composite
def laws_of_any_kind(draw) -> Law | None:
    """Each part or none: also what no request may ask for together."""
    tokens = sorted(draw(st.sets(st.integers(0, 40), max_size=MAX_POINTS)))
    low, high = sorted(draw(st.sampled_from([(-1.0, 1.0), (0.01, -0.02), (0.0, 0.1)])))
    law = Law(
        tuple((token, draw(numbers)) for token in tokens) or None,
        draw(st.none() | st.builds(Divergence, numbers, st.just(low), st.just(high), st.integers(0, 9))),
        draw(st.none() | st.sampled_from([-0.5, 0.37, 1.3, 2.6, 4.1])),
        draw(st.none() | st.builds(Marker, st.just("a"), numbers)),
    )
    return law if any(part is not None for part in law) else None


@pytest.mark.skipif(not (CUDA or INTERPRETED), reason="runs interpreted, in the process of the test below")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_kernel_equals_the_specification(data):
    """Kills everything that the laws above forgot: of a batch's mix, its chains, and models of other forms."""
    requests = data.draw(st.lists(st.none() | laws_of_any_kind(), min_size=2, max_size=6))
    each = data.draw(st.sampled_from([1, 1, 3]))
    owner = [request for request in range(len(requests)) for _ in range(each)]
    vocab_size = data.draw(st.sampled_from([30_000, 211, 8191, 8192, 8193, 1]))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    needs = [law is not None or data.draw(st.booleans()) for law in requests]
    runs = dict.fromkeys((EXPERT, AMATEUR), SelectedRequests.of(needs, DEVICE, each))
    logits = {}
    for role in (BASE, EXPERT, AMATEUR):
        shards, dtype = data.draw(st.sampled_from([1, 2])), data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
        count = len(owner) if role == BASE else sum(needs) * each
        width = -(-vocab_size // shards) + data.draw(st.sampled_from([0, 5, 16]))
        rows = torch.randn(count, shards, width, generator=random) * data.draw(st.sampled_from([0.1, 2.0, 6.0]))
        for row in data.draw(st.sets(st.integers(0, max(0, count - 1)), max_size=2)):
            damage = data.draw(st.sampled_from([torch.nan, torch.inf, -torch.inf]))
            if row < count:
                rows[row, -1, : data.draw(st.sampled_from([1, width]))] = damage
        rows.flatten(1)[:, vocab_size:] = 100.0
        logits[role] = ShardedLogits(rows.to(DEVICE, dtype).transpose(0, 1))
    ruled_rows = {
        row: (law, data.draw(st.integers(0, 30)))
        for row, request in enumerate(owner)
        if (law := requests[request]) is not None
    }
    if not ruled_rows:
        return
    laws = LawRows.of((EXPERT, AMATEUR), ruled_rows, runs, DEVICE)
    weights = torch.randn(2, len(owner), generator=random).to(DEVICE)
    integers = data.draw(st.sampled_from([torch.int32, torch.int64]))
    lengths = torch.randint(1, 60, (len(owner),), generator=random).to(DEVICE, integers)
    past = (torch.rand(len(owner), generator=random) < 0.5).to(DEVICE) if laws.has_marker else None
    before = weights.clone()
    fast, specified = (
        compute(laws, weights, lengths, logits, vocab_size, past) for compute in (kernel(), law_weights_in_torch)
    )
    torch.testing.assert_close(fast, specified, rtol=1e-5, atol=1e-4, equal_nan=True)
    assert torch.equal(weights, before)
    without = [row for row in range(len(owner)) if row not in ruled_rows]
    assert torch.equal(fast[:, without], weights[:, without]), "bit for bit"


def test_the_device_chooses_who_computes():
    """Kills a GPU that is given the slow version, and a CPU that is given the kernel."""
    everyone = SelectedRequests.of([True] * len(LAWS), DEVICE)
    ruled_rows = {row: (read_law(law), 3) for row, law in enumerate(LAWS)}
    laws = LawRows.of((EXPERT, AMATEUR), ruled_rows, {EXPERT: everyone, AMATEUR: everyone}, DEVICE)
    logits = {role: ShardedLogits.whole(rows.to(DEVICE)) for role, rows in logits_of_three(len(LAWS), 8).items()}
    weights, lengths = torch.ones(2, len(LAWS), device=DEVICE), torch.full((len(LAWS),), 12, device=DEVICE)
    rows = laws, weights, lengths, logits, VOCAB, torch.zeros(len(LAWS), dtype=torch.bool, device=DEVICE)
    expected = kernel() if CUDA else law_weights_in_torch
    assert torch.equal(law_weights(*rows), expected(*rows))
    with pytest.raises(AssertionError):
        law_weights(*rows[:-1])  # nobody has looked for the markers


@pytest.mark.heavy
@pytest.mark.skipif(CUDA or INTERPRETED, reason="the kernel runs in this process")
def test_the_kernel_obeys_the_same_laws_when_interpreted():
    """Kills a mutant of the kernel on a machine without a GPU."""
    assert_kernel_obeys(__file__)
