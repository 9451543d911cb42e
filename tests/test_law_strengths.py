"""Weights that laws say, row by row, are those of their formulas; rows without a law keep theirs."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
from tokenizers import decoders

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guidance import ALPHA as PROXY_ALPHA
from sgl_proxythinker.guidance import AMATEUR_ALPHA, CARRIED, LAW, Defaults, Guidance, read_guidance, said_over
from sgl_proxythinker.laws import read_law
from sgl_proxythinker.programs.reference_hf import jensen_shannon, ruled
from sgl_proxythinker.requests.admission import refuse_unread_markers
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT
from sgl_proxythinker.step.law_strengths import LawRows, law_weights
from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.step.rows import SelectedRequests

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


def served(laws: list, lengths: list[int], logits: dict, prompts: list[int], past: list[bool] = ()) -> torch.Tensor:
    """[2, N] weights; row n has laws[n], None for none. `past`: whether each row follows its marker."""
    everyone = SelectedRequests.of([True] * len(laws), "cpu")
    runs = {EXPERT: everyone, AMATEUR: everyone}
    ruled_rows = {row: (read_law(law), prompts[row]) for row, law in enumerate(laws) if law is not None}
    weights = torch.full((2, len(laws)), ALPHA)
    told = {role: ShardedLogits.whole(rows) for role, rows in logits.items()}
    rows = LawRows.of((EXPERT, AMATEUR), ruled_rows, runs, "cpu")
    return law_weights(rows, weights, torch.tensor(lengths), told, VOCAB, torch.tensor(past, dtype=torch.bool))


def test_every_row_has_the_weight_of_its_own_law():
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


def test_equal_expert_and_amateur_are_no_reason_to_steer():
    """Kills: the base's divergence counted for the expert."""
    logits = logits_of_three(3, seed=2)
    logits[EXPERT] = logits[AMATEUR].clone()
    weights = served([{"kind": "divergence", "warmup_tokens": 0}] * 3, [9, 9, 9], logits, [3, 3, 3])
    assert not weights.any()


def test_a_bound_above_any_entropy_is_the_base_and_one_below_the_constant():
    logits = logits_of_three(2, seed=3)
    above = [{"kind": "entropy", "above": math.log(VOCAB)}, {"kind": "entropy", "above": -0.1}]
    assert served(above, [4, 4], logits, [1, 1]).tolist() == [[0.0, pytest.approx(ALPHA)]] * 2


def test_a_flat_schedule_is_the_constant():
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


def test_the_token_after_the_warm_up_is_the_laws():
    """Kills: a warm-up that is one token longer or shorter."""
    logits = logits_of_three(2, seed=5)
    of_law = {"kind": "divergence", "warmup_tokens": 4, "low": 2.0, "high": 2.0}
    assert served([of_law] * 2, [13, 14], logits, [10, 10])[0].tolist() == [pytest.approx(ALPHA), 2.0]
