"""What the plans say that the rows of a step take is what they take: neither less nor much more."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from live_bytes import LiveBytes
from roster import SMALL, TRIPLE
from servers import ON_GPU
from sgl_proxythinker.placement import Shape, place
from sgl_proxythinker.roles import AMATEUR, EXPERT
from sgl_proxythinker.speculation.penalties import WrittenCounts
from sgl_proxythinker.step.logits import ShardedLogits, WeightedPair
from sgl_proxythinker.step.row_memory import PENALIZED_AT_ONCE, counted_rows, largest_batch, row_memory
from sgl_proxythinker.step.rows import SelectedRequests
from sgl_proxythinker.step.trace import TracedRows, attach_evidence, trace_tokens

DEVICE = "cuda" if ON_GPU else "cpu"
WIDTH = 1000
EVERYTHING = {
    "frequency_penalty": 0.5, "presence_penalty": 0.25, "repetition_penalty": 1.05, "min_new_tokens": 9,
    "stop_token_ids": None,
}  # fmt: skip


class Request:
    """What of SGLang's `Req` is read."""

    def __init__(self, params: dict):
        self.sampling_params = SimpleNamespace(**params)
        self.origin_input_ids, self.output_ids = [1, 2], [3]
        self.tokenizer = SimpleNamespace(eos_token_id=4, additional_stop_token_ids=None)

    def finished(self) -> bool:
        return False


def planned(requests: int, drafts: int, layout: str = "shared", rank: int = 0):
    placement = place(2, dict.fromkeys(TRIPLE, Shape(8, 8, 8, 8, 8)), layout)
    options = {"placement": placement, "rank": rank, "dtype": torch.float16, "by_kernels": ON_GPU}
    return row_memory(requests, WIDTH, drafts, **options)


def cycle(counts: WrittenCounts, reqs: list, each: int) -> None:
    """What a cycle takes penalties for."""
    chains = torch.arange(len(reqs) * each, device=DEVICE).view(len(reqs), each) % WIDTH
    for _, penalties in counts.along(reqs, chains, torch.full((len(reqs),), 3, device=DEVICE)):
        del penalties
    counts.accept(reqs, chains, torch.ones(len(reqs), dtype=torch.int64, device=DEVICE))


@pytest.mark.parametrize("params", [EVERYTHING, EVERYTHING | {"frequency_penalty": 0.0, "presence_penalty": 0.0}])
@pytest.mark.parametrize(("requests", "drafts"), [(3, 3), (100, 3), (300, 1), (300, 7)])
def test_penalties_along_chains(requests, drafts, params):
    """Kills: counts that are not planned, penalties of all rows at once, a part that is kept while the next is made."""
    reqs, counts = [Request(params) for _ in range(requests)], WrittenCounts(WIDTH, DEVICE)
    with LiveBytes() as when_read:
        counts.begin(reqs, [3] * requests)
    plan = planned(requests, drafts).penalized_bytes
    held = counts._counts.untyped_storage().nbytes()
    assert held == 4 * WIDTH * counted_rows(requests) and requests < counted_rows(requests) <= 2 * requests + 8
    assert when_read.most <= plan
    for each in (1, drafts + 1):
        with LiveBytes() as live:
            cycle(counts, reqs, each)
        assert held + live.most <= plan
    of_a_part = min(requests * each, PENALIZED_AT_ONCE) * WIDTH
    if params is EVERYTHING:
        assert live.most > 5 * of_a_part, "what is added, and where"
    assert live.most <= 10.5 * of_a_part, "and not of more rows"


def test_without_drafts_there_are_none_of_ours():
    assert planned(64, 0).penalized_bytes == planned(64, 0).drafted_bytes == 0


@pytest.mark.parametrize("rows", [3, 70])
def test_a_trace(rows):
    """Kills: a trace that takes more with each row, and one that is not in the plan."""
    *models, fused = torch.randn(4, rows, WIDTH, device=DEVICE)
    sharded = {role: ShardedLogits.whole(of_model) for role, of_model in zip(TRIPLE, models, strict=True)}
    every = SelectedRequests.of([True] * rows, DEVICE)
    traced = TracedRows.of(SMALL, range(rows), dict.fromkeys(SMALL, every), DEVICE)
    pair = WeightedPair(sharded[EXPERT], sharded[AMATEUR], torch.ones(2, rows, device=DEVICE))
    output, tokens = SimpleNamespace(), torch.zeros(rows, dtype=torch.int64, device=DEVICE)
    with LiveBytes() as live:
        attach_evidence(output, sharded, {SMALL: pair}, fused, [traced], list(range(rows)), WIDTH)
        trace_tokens(SimpleNamespace(logits_output=output, next_token_ids=tokens, delay_sample_func=None))
    plan = planned(rows, 0).traced_bytes
    assert live.most <= plan
    if not ON_GPU:  # there it is numbers of rows alone, and 1,024 bytes a row are plenty
        assert live.most > 0.7 * plan


def test_another_rank_tells_no_trace_and_has_no_drafter():
    """Kills: what one rank does counted for all."""
    here, elsewhere = (planned(64, 3, "split", rank) for rank in range(2))
    assert elsewhere == here._replace(drafted_bytes=0, traced_bytes=0) and here.drafted_bytes == here.fused_bytes > 0


def test_only_logits_of_models_that_are_not_everywhere_travel():
    """How many bytes that takes has a law of its own, with ranks that talk (`test_logits_gather.py`)."""
    assert planned(64, 3).gathered_bytes == 0 < planned(64, 3, "split").gathered_bytes


@pytest.mark.parametrize(
    ("device", "most_running", "planned_for"),
    [("cuda", None, 256), ("cuda", 2048, 256), ("cuda", 48, 48), ("cpu", 2048, 2048), ("cpu", None, 256)],
)
def test_the_plan_is_for_the_largest_batch_that_has_a_graph_or_may_run(device, most_running, planned_for):
    graphs = SimpleNamespace(decode=SimpleNamespace(max_bs=256))
    server_args = SimpleNamespace(device=device, cuda_graph_config=graphs)
    assert largest_batch(server_args, most_running) == planned_for
