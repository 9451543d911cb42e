"""Laws of the formula; each docstring names the mutant that the law kills."""

import pytest
import torch

from sgl_proxythinker.fusion import fuse_logits, neutralize_broken_rows_

V = 50  # ids that the tokenizer knows


def weights(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


@pytest.fixture
def logits():
    """Base, expert and amateur of 3 rows, heads of three widths."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(3, width, generator=generator) * 5 for width in (64, 56, 52))


def test_it_is_the_formula(logits):
    """Kills a swapped sign, swapped proxies, a forgotten weight: checked against float64."""
    base, expert, amateur = (model[:, :V].double() for model in logits)
    expert_weight, amateur_weight = weights(0.5, 1.5, -2.0), weights(0.5, 0.0, 3.0)
    wanted = base + expert_weight[:, None] * expert - amateur_weight[:, None] * amateur
    fused = fuse_logits(*logits, expert_weight, amateur_weight, V)
    torch.testing.assert_close(fused[:, :V].double(), wanted, rtol=1e-5, atol=1e-4)


def test_strength_zero_returns_the_base_row_bit_for_bit(logits):
    """Kills blending of the kind (1 - alpha) * base, and a base that is normalised first."""
    fused = fuse_logits(*logits, weights(0, 0, 0), weights(0, 0, 0), V)
    assert torch.equal(fused[:, :V], logits[0][:, :V])


@pytest.mark.parametrize("alpha", [-10.0, 0.1, 0.5, 1 / 3, 10.0])
def test_equal_proxies_cancel_exactly(logits, alpha):
    """Kills base + a*expert - a*amateur in that order, whose rounding error changes near ties."""
    base, expert, _ = logits
    fused = fuse_logits(base, expert, expert, weights(*[alpha] * 3), weights(*[alpha] * 3), V)
    assert torch.equal(fused[:, :V], base[:, :V])


def test_a_token_the_expert_prefers_goes_up_and_one_the_amateur_prefers_goes_down():
    """Kills expert and amateur swapped, which equal-proxy and zero-alpha laws don't see."""
    base = torch.zeros(1, 4)
    expert, amateur = torch.tensor([[0.0, 2.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 2.0, 0.0]])
    fused = fuse_logits(base, expert, amateur, weights(0.5), weights(0.5), 4)
    assert fused.tolist() == [[0.0, 1.0, -1.0, 0.0]]


def test_padding_columns_can_never_be_sampled(logits):
    """Kills a slice off by one, and padding that is left as it came."""
    base = logits[0].clone()
    base[:, V:] = 1e9
    fused = fuse_logits(base, *logits[1:], weights(1, 1, 1), weights(1, 1, 1), V)
    assert fused.shape == base.shape
    assert torch.isneginf(fused[:, V:]).all() and fused[:, :V].isfinite().all()


@pytest.mark.parametrize("widths", [(50, 64, 56), (64, 50, 50), (52, 50, 64)])
def test_heads_may_be_wider_or_narrower_in_any_direction(widths):
    """Kills a sum over whole rows, which fails or reads padding when widths differ."""
    generator = torch.Generator().manual_seed(1)
    known = [torch.randn(2, V, generator=generator) for _ in widths]
    padded = [torch.cat([k, torch.full((2, w - V), 7.0)], dim=1) for k, w in zip(known, widths, strict=True)]
    fused = fuse_logits(*padded, weights(0.5, 2), weights(0.5, 2), V)
    assert torch.equal(fused[:, :V], fuse_logits(*known, weights(0.5, 2), weights(0.5, 2), V))


def test_each_row_has_its_own_strength(logits):
    """Kills one alpha for the batch, and weights broadcast along the vocabulary."""
    expert_weight, amateur_weight = weights(0, 1, -3), weights(2, 1, 0)
    together = fuse_logits(*logits, expert_weight, amateur_weight, V)
    for row in range(3):
        one = slice(row, row + 1)
        alone = fuse_logits(*(model[one] for model in logits), expert_weight[one], amateur_weight[one], V)
        assert torch.equal(together[one], alone)


@pytest.mark.parametrize("amateur_weight", [(0.5, 2, -3), (0.5, 1, 0)], ids=["one alpha", "two"])
@pytest.mark.parametrize("first", [0.5, 0.0], ids=["all guided", "one base alone"])
def test_what_the_caller_knows_saves_passes_and_changes_nothing(logits, amateur_weight, first):
    """Kills a pass that is skipped where it is needed."""
    expert_weight = weights(first, 2, -3)
    amateur_weight = weights(first, *amateur_weight[1:])
    known = {
        "one_alpha": bool((expert_weight == amateur_weight).all()),
        "all_guided": bool(((expert_weight != 0) | (amateur_weight != 0)).all()),
    }
    logits[1][0, 3] = float("nan") if first == 0 else 1.0
    fused = fuse_logits(*logits, expert_weight, amateur_weight, V, **known)
    assert torch.equal(fused, fuse_logits(*logits, expert_weight, amateur_weight, V))
    assert fused[:, :V].isfinite().all()


def test_inputs_are_untouched(logits):
    """Kills in-place arithmetic on a graph's static output."""
    before = [model.clone() for model in logits]
    fuse_logits(*logits, weights(1, 1, 1), weights(1, 0, 1), V)
    assert all(torch.equal(a, b) for a, b in zip(before, logits, strict=True))


def test_half_precision_logits_are_added_in_float32():
    """Kills a sum or a difference in bfloat16: there 256 + 0.5 is 256, and 256 - 0.5 too."""
    base, expert, amateur = (torch.tensor([[x]], dtype=torch.bfloat16) for x in (256.0, 256.0, 0.5))
    fused = fuse_logits(base, expert, amateur, weights(0.5), weights(0.5), 1)
    assert fused.dtype == torch.float32 and fused.tolist() == [[256.0 + 0.5 * 255.5]]


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_proxy_does_not_reach_rows_without_guidance(logits, broken):
    """Kills 0 * inf."""
    base, expert, amateur = (model.clone() for model in logits)
    expert[:, 3] = broken
    fused = fuse_logits(base, expert, amateur, weights(0, 1, 0), weights(0, 1, 0), V)
    sound = neutralize_broken_rows_(fused, V)
    assert sound.tolist() == [True, False, True]
    assert torch.equal(fused[::2, :V], base[::2, :V]), "rows without guidance are the base's"


def test_broken_rows_become_uniform_and_padding_stays_out(logits):
    """Kills a NaN that reaches the sampler, and a repair that opens the padding columns."""
    fused = fuse_logits(*logits, weights(1, 1, 1), weights(1, 1, 1), V)
    kept = fused.clone()
    fused[1, 7] = float("nan")
    sound = neutralize_broken_rows_(fused, V)
    assert sound.tolist() == [True, False, True]
    assert torch.equal(fused[::2], kept[::2]), "sound rows are not changed"
    assert (fused[1, :V] == 0).all() and torch.isneginf(fused[1, V:]).all()
