"""Laws of a row's statistics; each docstring names the mutant that the law kills.

Each law is asked of the specification in torch and of the kernel, which runs in triton's interpreter without a GPU, in
a process of its own (as in test_fusion).
"""

from __future__ import annotations

import math
import os

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from interpreted import assert_kernel_obeys
from sgl_proxythinker.step import statistics
from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.step.row_statistics import PairStatistics, RowStatistics
from sgl_proxythinker.step.statistics import ROWS_AT_ONCE, at_tokens

V = 50  # ids that the tokenizer knows
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


class Candidate:
    """The statistics of rows of one model and of two, by the specification or by the kernel."""

    def __init__(self, name: str):
        if name == "specification":
            self._one, self._pair = statistics.row_statistics_in_torch, statistics.pair_statistics_in_torch
        else:
            from sgl_proxythinker.step import statistics_kernel as kernel

            self._one, self._pair = kernel.row_statistics_by_kernel, kernel.pair_statistics_by_kernel

    def of(self, logits: ShardedLogits, rows: list[int], vocab_size: int = V) -> RowStatistics:
        return self._one(logits, torch.tensor(rows, device=DEVICE), vocab_size)

    def of_pair(self, one: ShardedLogits, other: ShardedLogits, rows: list[int], of_other=None) -> PairStatistics:
        of_one, of_other = (torch.tensor(own, device=DEVICE) for own in (rows, of_other or rows))
        return self._pair(one, of_one, other, of_other, V)


@pytest.fixture(params=["specification", "kernel"] if CUDA or INTERPRETED else ["specification"])
def candidate(request) -> Candidate:
    return Candidate(request.param)


def random_rows(seed: int, rows: int, vocab_size: int = V, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, vocab_size, generator=generator) * 8).to(dtype)


def sharded(known: torch.Tensor, shards: int) -> ShardedLogits:
    """With padding that is larger than any logit, and shards between the rows as they are sent."""
    width = -(-known.shape[1] // shards) + 2
    padded = torch.full((len(known), shards * width), 100.0, dtype=known.dtype)
    padded[:, : known.shape[1]] = known
    return ShardedLogits(padded.view(len(known), shards, width).transpose(0, 1).to(DEVICE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shards", [1, 3])
def test_they_are_those_of_the_rows_as_distributions(candidate, shards, dtype):
    """Kills: padding that counts, a sum in 16 bits, a shard too many, a part of the rows left out or out of order."""
    rows = 2 * ROWS_AT_ONCE + 3
    known = random_rows(3, rows, dtype=dtype)
    index = torch.randperm(rows, generator=torch.Generator().manual_seed(4))[: rows - 2].tolist()
    told = candidate.of(sharded(known, shards), index)
    wanted = known[index].double()
    assert (told.logsumexp.dtype, told.entropy.dtype, told.top1.dtype) == (torch.float64, torch.float32, torch.int64)
    assert told.logsumexp.tolist() == pytest.approx(wanted.logsumexp(-1).tolist(), abs=1e-4)
    assert told.entropy.tolist() == pytest.approx(entropy(wanted.softmax(-1).numpy(), axis=-1).tolist(), abs=1e-4)
    assert wanted.gather(1, told.top1.cpu()[:, None])[:, 0].tolist() == wanted.max(-1).values.tolist()


@pytest.mark.parametrize("vocab_size", [1, 4095, 4096, 4097, 9000])
def test_a_row_is_as_long_as_the_vocabulary(candidate, vocab_size):
    """Kills: blocks that are left out, and the part of a block past the end."""
    known = random_rows(5, 2, vocab_size)
    known[1, vocab_size - 1] = 60.0
    told = candidate.of(sharded(known, 2), [1, 0], vocab_size)
    wanted = known.double().flip(0)
    assert told.logsumexp.tolist() == pytest.approx(wanted.logsumexp(-1).tolist(), abs=1e-4)
    assert told.top1.tolist() == [vocab_size - 1, int(known[0].argmax())]


def test_a_logsumexp_keeps_the_digits_of_large_logits(candidate):
    """Kills: float32, in which 30,000 and 30,000.001 are the same."""
    known = torch.tensor([[30_000.0, 30_000.0 - 7]])
    told = candidate.of(sharded(known, 1), [0], 2)
    assert told.logsumexp.item() - 30_000 == pytest.approx(math.log1p(math.exp(-7)), abs=1e-6)


def test_the_first_of_equals_is_the_most_likely(candidate):
    """Kills: the last one, which argmax does not name."""
    known = torch.zeros(1, 9000)
    known[0, [17, 17 + 4096, 4500, 8999]] = 3.0
    assert candidate.of(sharded(known, 1), [0], 9000).top1.item() == 17


def test_an_id_that_cannot_be_drawn_counts_for_nothing(candidate):
    """Kills: 0 * -inf, which is NaN."""
    known = random_rows(6, 2)
    known[:, 3] = -torch.inf
    other = random_rows(7, 2)
    other[:, 4] = -torch.inf
    told = candidate.of_pair(sharded(known, 1), sharded(other, 2), [0, 1])
    probabilities = known.double().softmax(-1).numpy(), other.double().softmax(-1).numpy()
    assert told.one.entropy.tolist() == pytest.approx(entropy(probabilities[0], axis=-1).tolist(), abs=1e-4)
    wanted = [jensenshannon(*row) ** 2 for row in zip(*probabilities, strict=True)]
    assert told.js_nats.tolist() == pytest.approx(wanted, abs=1e-5)


def test_a_broken_row_is_told_and_reaches_no_other(candidate):
    """Kills: a NaN that passes for a number."""
    known = random_rows(8, 3)
    wanted = candidate.of(sharded(known, 1), [0, 2])
    known[1, 7] = torch.nan
    told = candidate.of(sharded(known, 1), [0, 1, 2])
    assert math.isnan(told.logsumexp[1]) and math.isnan(told.entropy[1])
    assert torch.equal(told.logsumexp[::2], wanted.logsumexp) and torch.equal(told.top1[::2], wanted.top1)


def test_the_divergence_is_scipys(candidate):
    """Kills: another base of the logarithm, half of it, its root; rows of one model taken for the other's."""
    one, other = (random_rows(seed, 40) / 2 for seed in (1, 2))
    rows, of_other = list(range(40)), list(range(39, -1, -1))
    told = candidate.of_pair(sharded(one, 1), sharded(other, 3), rows, of_other)
    wanted = [
        jensenshannon(p, q) ** 2
        for p, q in zip(one.double().softmax(-1), other.flip(0).double().softmax(-1), strict=True)
    ]
    assert told.js_nats.tolist() == pytest.approx(wanted, abs=1e-5), "the square of scipy's distance"
    assert torch.equal(told.one.top1.cpu(), one.argmax(-1))
    assert torch.equal(told.other.top1.cpu(), other.flip(0).argmax(-1))


def test_equal_models_diverge_by_nothing_and_disjoint_ones_by_log_2(candidate):
    logits = sharded(random_rows(9, 3), 1)
    nothing = candidate.of_pair(logits, logits, [0, 1, 2]).js_nats
    assert (nothing >= 0).all() and nothing.max() < 1e-6
    one, other = torch.full((2, 1, V), -200.0)
    one[0, 3] = other[0, 4] = 0.0
    assert candidate.of_pair(sharded(one, 1), sharded(other, 1), [0]).js_nats.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("shards", [1, 3])
def test_the_logit_of_a_token_is_found_in_its_shard(shards):
    known = random_rows(10, 5, dtype=torch.bfloat16)
    rows, tokens = torch.tensor([4, 0, 4]), torch.tensor([0, 49, 17])
    found = at_tokens(sharded(known, shards), rows.to(DEVICE), tokens.to(DEVICE))
    assert found.dtype == torch.float32 and found.tolist() == known[rows, tokens].float().tolist()


def test_the_device_chooses_who_computes():
    """Kills a GPU that is given the slow version, and a CPU that is given the kernel."""
    logits, rows = sharded(random_rows(11, 4), 2), torch.tensor([2, 0], device=DEVICE)
    expected = Candidate("kernel" if CUDA else "specification")
    for told, wanted in zip(statistics.row_statistics(logits, rows, V), expected.of(logits, [2, 0]), strict=True):
        assert torch.equal(told, wanted)
    told, wanted = (
        statistics.row_statistics_of_pair(logits, rows, logits, rows, V),
        expected.of_pair(logits, logits, [2, 0]),
    )
    assert torch.equal(told.js_nats, wanted.js_nats)


@pytest.mark.heavy
@pytest.mark.skipif(CUDA or INTERPRETED, reason="the kernel runs in this process")
def test_the_kernel_obeys_the_same_laws_when_interpreted():
    """Kills a mutant of the kernel on a machine without a GPU."""
    assert_kernel_obeys(__file__)
