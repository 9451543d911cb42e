"""Weights that laws say, row by row, are those of their formulas; rows without a law keep theirs."""

import math

import pytest
import torch

from programs.reference_hf import jensen_shannon, ruled
from sgl_proxythinker.guidance import LAW, Guidance, read_guidance
from sgl_proxythinker.laws import read_law
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT
from sgl_proxythinker.step.law_strengths import LawRows, law_weights
from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.step.rows import SelectedRequests

VOCAB, PADDED = 211, 224
ALPHA = 0.7
LAWS = [
    {"kind": "schedule", "points": [[0, 2.0], [4, 0.0], [10, -1.0]]},
    {"kind": "schedule", "points": [[3, 1.5]]},
    {"kind": "divergence", "warmup_tokens": 0, "low": -1.0, "scale": 3.0},
    {"kind": "divergence", "warmup_tokens": 4, "low": 0.01, "high": 0.02},
    {"kind": "entropy", "above": 2.5},
    [{"kind": "schedule", "points": [[0, 0.0], [8, 4.0]]}, {"kind": "entropy", "above": 3.0}],
    [{"kind": "divergence", "warmup_tokens": 2, "low": -1.0}, {"kind": "entropy", "above": 2.0}],
]


def logits_of_three(rows: int, seed: int) -> dict:
    random = torch.Generator().manual_seed(seed)
    # Rows from nearly uniform to nearly sure, so that entropies lie on both sides of the laws' bounds.
    spread = torch.linspace(0.2, 6.0, rows)[:, None]
    made = {role: torch.randn(rows, PADDED, generator=random) * spread for role in (BASE, EXPERT, AMATEUR)}
    for logits in made.values():
        logits[:, VOCAB:] = 50.0  # padding, which says nothing
    return made


def served(laws: list, lengths: list[int], logits: dict, prompts: list[int]) -> torch.Tensor:
    """[2, N] weights; row n has laws[n], None for none."""
    everyone = SelectedRequests.of([True] * len(laws), "cpu")
    runs = {EXPERT: everyone, AMATEUR: everyone}
    ruled_rows = {row: (read_law(law), prompts[row]) for row, law in enumerate(laws) if law is not None}
    weights = torch.full((2, len(laws)), ALPHA)
    told = {role: ShardedLogits.whole(rows) for role, rows in logits.items()}
    return law_weights(LawRows.of(ruled_rows, runs, "cpu"), weights, torch.tensor(lengths), told, VOCAB)


def test_every_row_has_the_weight_of_its_own_law():
    """Kills: rows, numbers or prompts of one law read for another's, padding read, warm-up counted from the prompt."""
    laws = [law for one in LAWS for law in (one, None)] * 4
    rows = len(laws)
    logits = logits_of_three(rows, seed=1)
    prompts = [5 + row for row in range(rows)]
    generated = [(3 * row) % 13 for row in range(rows)]
    weights = served(laws, [p + g for p, g in zip(prompts, generated, strict=True)], logits, prompts)
    seen = set()
    for row, law in enumerate(laws):
        plus = minus = ALPHA
        for one in law if isinstance(law, list) else [law] if law else []:
            known = (logits[role][row, :VOCAB] for role in (BASE, EXPERT, AMATEUR))
            plus, minus = ruled(one, plus, minus, generated[row], *known)
        assert weights[:, row].tolist() == pytest.approx([plus, minus], abs=1e-5), (row, law, generated[row])
        seen.add(round(plus, 3))
    assert len(seen) > 12 and 0.0 in seen, "the laws say different strengths"


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
    guidance = read_guidance({LAW: law}, Guidance.of(ALPHA))
    assert guidance.law is not None and read_law(guidance.as_params()[LAW]) == guidance.law
    carried = [[list(contrast) for contrast in guidance.contrasts], False, as_msgpack_gives(guidance.law), None, None]
    assert Guidance.of_carried(carried) == guidance and {guidance}


def as_msgpack_gives(value):
    return [as_msgpack_gives(item) for item in value] if isinstance(value, tuple) else value


def test_the_token_after_the_warm_up_is_the_laws():
    """Kills: a warm-up that is one token longer or shorter."""
    logits = logits_of_three(2, seed=5)
    of_law = {"kind": "divergence", "warmup_tokens": 4, "low": 2.0, "high": 2.0}
    assert served([of_law] * 2, [13, 14], logits, [10, 10])[0].tolist() == [pytest.approx(ALPHA), 2.0]
