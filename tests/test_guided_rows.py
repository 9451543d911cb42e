"""Laws of the batch that the small models run: it is what SGLang would have made of its requests alone."""

from __future__ import annotations

import copy
import dataclasses
from itertools import accumulate, combinations
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from servers import ON_GPU
from upstream_sources import declared_fields

DEVICE = "cuda" if ON_GPU else "cpu"


@pytest.fixture(scope="module", autouse=True)
def upstream(sglang):
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch, ForwardMode
    from sglang.srt.speculative.dflash_info import DFlashVerifyInput

    return SimpleNamespace(ForwardBatch=ForwardBatch, ForwardMode=ForwardMode, DFlashVerifyInput=DFlashVerifyInput)


class Request(NamedTuple):
    """What of a batch is this request's."""

    pool_index: int
    seq_len: int  # with the tokens of this step
    prompt_len: int
    new: int  # tokens of this step; 1 in a decode step
    image: Any = None


# Of different lengths; the last row of a mixed batch is one that decodes.
REQUESTS = [Request(7, 12, 12, 5, "wide"), Request(2, 9, 30, 9), Request(0, 31, 31, 1, "tall"), Request(5, 4, 3, 1)]
SUBSETS = [list(rows) for size in range(1, 5) for rows in combinations(range(4), size)]


def tensor(values: list, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=DEVICE)


def tokens_of(request: Request) -> list[int]:
    """Numbers that no other request's tokens have, one for each position of this step."""
    return [100 * request.pool_index + at for at in range(request.seq_len - request.new, request.seq_len)]


def batch_of(upstream, requests: list[Request], mode: str):
    """A batch of these requests, with the fields that `ForwardBatch.init_new` fills for Qwen2.5-VL."""
    if mode == "DECODE":
        requests = [request._replace(new=1) for request in requests]
    if mode == "TARGET_VERIFY":
        requests = [request._replace(new=3) for request in requests]
    tokens = [token for request in requests for token in tokens_of(request)]
    lengths = [request.seq_len for request in requests]
    batch = upstream.ForwardBatch(
        forward_mode=upstream.ForwardMode[mode],
        batch_size=len(requests),
        input_ids=tensor(tokens),
        req_pool_indices=tensor([request.pool_index for request in requests]),
        seq_lens=tensor(lengths),
        out_cache_loc=tensor([token + 5000 for token in tokens]),
        seq_lens_sum=sum(lengths),
        seq_lens_cpu=torch.tensor(lengths),
        orig_seq_lens=tensor([max(request.seq_len, request.prompt_len) for request in requests], torch.int32),
        positions=tensor([token % 100 for token in tokens]),
        mrope_positions=tensor([[token + axis for token in tokens] for axis in range(3)]),
        mm_inputs=[request.image for request in requests],
        lora_ids=[None] * len(requests),
        rids=[f"request {request.pool_index}" for request in requests],
        num_token_non_padded=tensor(len(tokens), torch.int32),
        num_token_non_padded_cpu=len(tokens),
    )
    if mode == "DECODE":
        return batch
    if mode == "TARGET_VERIFY":
        batch.spec_info = upstream.DFlashVerifyInput(tensor(tokens), batch.positions, draft_token_num=3)
        return batch
    new = [request.new for request in requests]
    batch.extend_num_tokens = len(tokens)
    batch.extend_seq_lens = tensor(new, torch.int32)
    batch.extend_prefix_lens = tensor([request.seq_len - request.new for request in requests], torch.int32)
    batch.extend_start_loc = tensor([0, *accumulate(new)][:-1], torch.int32)
    batch.extend_seq_lens_cpu = new
    batch.extend_prefix_lens_cpu = [request.seq_len - request.new for request in requests]
    return batch


def assert_equal(one, other) -> None:
    for field in dataclasses.fields(one):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if torch.is_tensor(theirs):
            assert ours.dtype == theirs.dtype and ours.tolist() == theirs.tolist(), field.name
        elif dataclasses.is_dataclass(theirs):
            assert_equal(ours, theirs)
        else:
            assert ours == theirs, field.name


def guided(rows: list[int], size: int = 4):
    from sgl_proxythinker.step.rows import SelectedRequests

    return SelectedRequests.of([row in rows for row in range(size)], DEVICE)


def select(batch, rows: list[int], size: int = 4):
    from sgl_proxythinker.step.rows import select_rows

    return select_rows(batch, guided(rows, size))


@pytest.mark.parametrize("rows", SUBSETS, ids=str)
@pytest.mark.parametrize("mode", ["DECODE", "EXTEND", "MIXED", "TARGET_VERIFY"])
def test_the_batch_of_some_rows_is_that_of_their_requests_alone(upstream, mode, rows):
    """Kills: another row's tokens, slots or positions; a length, sum or start that counts rows left out."""
    some = select(batch_of(upstream, REQUESTS, mode), rows)
    assert_equal(some, batch_of(upstream, [REQUESTS[row] for row in rows], mode))


@pytest.mark.parametrize("mode", ["DECODE", "EXTEND"])
def test_nothing_of_the_whole_batch_changes(upstream, mode):
    """Also not through what is done to the other: clamping ids in place is what embedding an image does."""
    batch = batch_of(upstream, REQUESTS, mode)
    before, held = copy.deepcopy(batch), copy.copy(batch)
    for rows in SUBSETS:
        some = select(batch, rows)
        for field in dataclasses.fields(some):
            if torch.is_tensor(values := getattr(some, field.name)):
                values.fill_(-1)
            elif isinstance(values, list):
                values.clear()
    assert_equal(batch, before)
    assert all(getattr(batch, f.name) is getattr(held, f.name) for f in dataclasses.fields(batch))


@pytest.mark.parametrize("mode", ["DECODE", "EXTEND", "MIXED", "TARGET_VERIFY"])
@given(data=st.data())
def test_selecting_twice_is_selecting_once(upstream, mode, data):
    """Kills: a field that is read from the whole batch where it should be from what is left of it."""
    once = data.draw(st.sampled_from(SUBSETS), label="rows of the batch")
    places = st.lists(st.integers(0, len(once) - 1), unique=True, min_size=1).map(sorted)
    twice = data.draw(places, label="rows of these")
    batch = batch_of(upstream, REQUESTS, mode)
    assert_equal(select(select(batch, once), twice, len(once)), select(batch, [once[place] for place in twice]))


class TestFields:
    """Every field of a batch is somebody's, and one that is nobody's is noticed once it is set."""

    @pytest.mark.sources
    def test_each_is_classified_once_and_exists(self):
        from sgl_proxythinker.step.batch_fields import _FIELDS, OWNERS

        assert declared_fields("sglang.srt.model_executor.forward_batch_info:ForwardBatch") == OWNERS.keys()
        assert sum(len(fields.split()) for fields in _FIELDS.values()) == len(OWNERS)

    @pytest.mark.parametrize("mode", ["DECODE", "EXTEND", "MIXED", "TARGET_VERIFY"])
    def test_what_is_served_can_be_divided(self, upstream, mode):
        from sgl_proxythinker.step.batch_fields import undividable

        assert undividable(batch_of(upstream, REQUESTS, mode)) == []

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("input_embeds", torch.zeros(4)),
            ("encoder_lens", torch.ones(4)),
            ("multi_item_delimiter_indices", [torch.ones(1)]),
            ("spec_info", object()),
            ("split_index", 1),
            ("forward_metadata_ready", True),
        ],
    )
    def test_what_belongs_to_nobody_is_named(self, upstream, name, value):
        from sgl_proxythinker.step.batch_fields import undividable

        batch = batch_of(upstream, REQUESTS, "EXTEND")
        setattr(batch, name, value)
        assert undividable(batch) == [name]

    def test_a_field_of_a_later_release_is_named_too(self, upstream):
        from sgl_proxythinker.step.batch_fields import undividable

        later = dataclasses.make_dataclass("ForwardBatch", [("fresh", Any, 0)], bases=(upstream.ForwardBatch,))
        batch = batch_of(upstream, REQUESTS, "EXTEND")
        values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
        assert undividable(later(**values)) == []
        assert undividable(later(**values, fresh=[torch.ones(1)])) == ["fresh"]


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("requests", [[], *SUBSETS], ids=str)
def test_each_row_leads_to_the_models_row_of_the_same_request(requests, each):
    """Kills: the row of another request, and another row of the same one."""
    from sgl_proxythinker.step.rows import SelectedRequests

    found = SelectedRequests.of([request in requests for request in range(4)], DEVICE, each)
    assert found.index == found.on_device.tolist() == requests and len(found) == len(requests)
    assert found.rows == found.rows_on_device.tolist()
    of_models = [(request, offset) for request in requests for offset in range(each)]
    for row, place in enumerate(found.rows):
        request, offset = divmod(row, each)
        assert place == -1 if request not in requests else of_models[place] == (request, offset)
    assert found.on_device.dtype == found.rows_on_device.dtype == torch.int64
