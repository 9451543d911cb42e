"""Laws of the cut of implausible ids, on rows as SGLang's biases and masks leave them."""

from __future__ import annotations

import math
import os
from types import SimpleNamespace

import pytest
import torch

from device_sync import no_waiting
from interpreted import assert_kernel_obeys
from roster import SMALL
from servers import ON_GPU
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.frontend.proxy_gen import proxy_gen
from sgl_proxythinker.guidance import Guidance
from sgl_proxythinker.requests.admission import admit_request
from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.step.plan import StepInputs
from sgl_proxythinker.step.plausible import PlausibleRows, attach_plausible, cut_implausible, cut_in_torch

DEVICE = "cuda" if ON_GPU else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
VOCAB, WIDTH = 211, 224
ROWS = 40  # more than are cut at once


@pytest.fixture
def base():
    """[ROWS, WIDTH] raw logits, from nearly uniform rows to nearly sure ones; padding is larger than anything else."""
    made = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1))
    made *= torch.linspace(0.2, 6.0, ROWS)[:, None]
    made[:, VOCAB:] = 100.0
    return made.to(DEVICE)


@pytest.fixture
def fused():
    """[ROWS, WIDTH] rows of which the base knows nothing."""
    made = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(2)) * 4
    made[:, VOCAB:] = -torch.inf
    return made.to(DEVICE)


@pytest.fixture(params=["specification", "kernel"] if ON_GPU or INTERPRETED else ["specification"])
def cut(request):
    """The rows after the cut, by the specification or by the kernel; row n asks for shares[n], None for nothing."""
    if request.param == "specification":
        write = cut_in_torch
    else:
        from sgl_proxythinker.step.plausible_kernel import cut_by_kernel as write

    def cut(fused, base, shares, bias=None):
        asked = PlausibleRows.of({row: share for row, share in enumerate(shares) if share is not None}, DEVICE)
        logits = base if isinstance(base, ShardedLogits) else ShardedLogits.whole(base)
        rows, known = fused.clone(), VOCAB if fused.shape[1] == WIDTH else fused.shape[1]
        with no_waiting():
            write(rows, *asked, logits, bias, known)
        return rows

    return cut


def wanted(fused, base, shares, bias=None):
    """By the definition, id by id, with Python's numbers."""
    rows, known = fused.clone(), VOCAB if fused.shape[1] == WIDTH else fused.shape[1]
    for row, share in enumerate(shares):
        if share is None:
            continue
        said = base[row, :known].double() + (0.0 if bias is None else bias[row, :known].double())
        chances = said.softmax(-1).tolist()
        best = max(chance for chance, now in zip(chances, fused[row].tolist(), strict=False) if now > -math.inf)
        for token, chance in enumerate(chances):
            if chance < share * best:
                rows[row, token] = -torch.inf
    return rows


SHARES = [(None, 0.01, 0.1, 0.5, 0.9, 1.0)[row % 6] for row in range(ROWS)]


def test_each_row_keeps_what_is_as_likely_as_it_asks(cut, fused, base):
    """Kills: padding taken for the best, another row's share, a row that did not ask, parts of rows mixed up."""
    told = cut(fused, base, SHARES)
    assert torch.equal(told, wanted(fused, base, SHARES))
    kept = told.isfinite().sum(-1)
    assert all(kept[row] == VOCAB for row in range(0, ROWS, 6)), "no share: nothing is cut"
    assert all(kept[row] == 1 for row in range(5, ROWS, 6)), "1: the base's best"
    assert len(set(kept.tolist())) > 10


def test_the_best_is_among_what_grammars_and_bans_leave(cut, fused, base):
    """Kills: an empty row where the base's best is not allowed."""
    for row, ids in enumerate(base[:, :VOCAB].argsort(-1, descending=True).tolist()):
        fused[row, ids[: row % 9]] = -torch.inf
    told = cut(fused, base, SHARES)
    assert torch.equal(told, wanted(fused, base, SHARES))
    greedy = base[:, :VOCAB].masked_fill(fused[:, :VOCAB] == -torch.inf, -torch.inf).argmax(-1)
    assert torch.equal(told.argmax(-1)[5::6], greedy[5::6]), "at 1 it is the base's greedy choice among the allowed"


def test_a_bias_is_the_bases_too(cut, fused, base):
    """Kills: a banned id that is taken for the best and alone is left; one that is forced and ruled out."""
    bias = torch.zeros(ROWS, WIDTH, device=DEVICE)
    every = torch.arange(ROWS, device=DEVICE)
    best, least = base[:, :VOCAB].argmax(-1), base[:, :VOCAB].argmin(-1)
    bias[every, best], bias[every, least] = -100.0, 100.0
    told = cut(fused + bias, base, [1.0] * ROWS, bias)
    assert torch.equal(told, wanted(fused + bias, base, [1.0] * ROWS, bias))
    assert torch.equal(told.argmax(-1), least)


def test_what_another_rank_sent_is_cut_as_well(cut, fused, base):
    """Columns in shards, in 16 bits; rows of a larger table."""
    narrow = base.bfloat16()
    shards = ShardedLogits(torch.stack(torch.cat([narrow, narrow]).chunk(2, dim=1)))
    assert torch.equal(cut(fused, shards, SHARES), wanted(fused, narrow, SHARES))


def test_a_row_of_nothing_and_one_that_is_no_number_stay_as_they_are(cut, fused, base):
    """Grammars in an error leave nothing; the request of a damaged base ends by its verdict."""
    fused[1], fused[2] = -torch.inf, 0.0
    base[2, 7] = torch.nan
    told = cut(fused, base, SHARES)
    assert torch.equal(told[1:3], fused[1:3])


def test_a_vocabulary_of_several_blocks_is_read_whole(cut):
    """Kills: a best of the last block, and a cut in the first alone."""
    generator = torch.Generator().manual_seed(3)
    base, fused = (torch.randn(3, 9000, generator=generator).to(DEVICE) for _ in range(2))
    shares = [0.05, None, 0.5]
    told = cut(fused, base, shares)
    assert torch.equal(told, wanted(fused, base, shares))
    kept = told.isfinite().view(3, 3, 3000).sum(-1)
    assert (kept[1] == 3000).all() and (0 < kept[0]).all() and (kept[0] < 3000).all()


@pytest.mark.heavy
@pytest.mark.skipif(ON_GPU or INTERPRETED, reason="the kernel runs in this process")
def test_the_kernel_obeys_the_same_laws_when_interpreted():
    """Kills a mutant of the kernel on a machine without a GPU."""
    assert_kernel_obeys(__file__)


def test_it_is_done_once_and_only_where_it_was_asked_for(fused, base):
    output = SimpleNamespace(next_token_logits=fused.clone())
    cut_implausible(output, None)
    assert torch.equal(output.next_token_logits, fused)
    attach_plausible(output, PlausibleRows.of({0: 1.0}, DEVICE), ShardedLogits.whole(base), VOCAB)
    cut_implausible(output, None)
    assert torch.equal(output.next_token_logits, wanted(fused, base, [1.0] + [None] * (ROWS - 1)))
    assert list(vars(output)) == ["next_token_logits"], "the base's logits are let go"


@pytest.mark.parametrize("each", [1, 3])
def test_a_step_knows_the_rows_of_each_request(each):
    """Kills: a share of another request, or of one row of a chain alone."""
    asked = [Guidance.of(1.0), Guidance.of(0.0, plausible=0.25), Guidance.of(1.0, plausible=0.5)]
    inputs = StepInputs(SMALL, DEVICE)
    step = inputs.on_device(asked, [guidance.reads for guidance in asked], each)
    assert step.plausible.rows.tolist() == list(range(each, 3 * each))
    assert step.plausible.margins.tolist() == pytest.approx([math.log(0.25)] * each + [math.log(0.5)] * each)
    assert all(requests.index == [0, 2] for requests in step.runs.values()), "the base alone decides what it rules out"
    assert inputs.on_device(asked[:1], [asked[0].reads]).plausible is None


def test_choices_are_not_drawn_so_nothing_is_ruled_out_of_them():
    with pytest.raises(RequestError, match="choices are scored, not drawn.* leave plausible or choices out"):
        proxy_gen("answer", plausible=0.1, choices=["a", "b"])
    proxy_gen("answer", plausible=0.0, choices=["a", "b"])
    proxy_gen("answer", plausible=0.1)


def test_plain_sglang_rules_nothing_out():
    def admitted(share):
        params = {"custom_params": {"proxy_plausible": share}}
        obj = SimpleNamespace(rid="a", text="Hi", input_ids=None, sampling_params=params)
        admit_request(obj, None, None, (), False)

    admitted(0.0)
    with pytest.raises(RequestError, match="can't rule out what proxy_plausible does: send min_p"):
        admitted(0.1)
