"""Laws of the verdicts on rows: a request is ended for a row of its own and for nobody else's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sgl_proxythinker.step.non_finite_rows import MESSAGE, abort_broken_rows, attach_verdict


def req(rid: str, **state) -> SimpleNamespace:
    """What of SGLang's `Req` is read."""
    usual = {"to_finish": None, "is_retracted": False, "inflight_middle_chunks": 0, "skip_radix_cache_insert": False}
    return SimpleNamespace(rid=rid, finished=lambda: False, **usual | state)


def ended(sound: list[bool], owner: list[int], reqs: list[SimpleNamespace]) -> list[str]:
    """Attach the verdict of a step, read it, and name the requests that it ends."""
    output = SimpleNamespace()
    attach_verdict(output, torch.tensor(sound), owner)
    abort_broken_rows(SimpleNamespace(reqs=reqs), SimpleNamespace(logits_output=output), report=False)
    return [one.rid for one in reqs if one.to_finish is not None]


@pytest.fixture(autouse=True)
def classes(sglang):
    """SGLang's reasons to finish."""


def test_a_request_is_ended_for_any_of_its_rows():
    """Kills: the row's number taken for the request's, the last row's verdict alone, one for all rows of a step."""
    owner = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for broken, wanted in (([], []), ([0], ["a"]), ([4], ["b"]), ([5], ["b"]), ([2, 6], ["a", "c"])):
        reqs = [req("a"), req("b"), req("c")]
        assert ended([row not in broken for row in range(9)], owner, reqs) == wanted
        assert [one.skip_radix_cache_insert for one in reqs] == [one.rid in wanted for one in reqs]


def test_one_that_ends_anyway_keeps_its_reason():
    reqs = [req("a", to_finish="stopped"), req("b", is_retracted=True), req("c")]
    reqs[2].finished = lambda: True
    assert ended([False] * 3, [0, 1, 2], reqs) == ["a"] and reqs[0].to_finish == "stopped"


def test_the_client_is_told_why():
    reqs = [req("a")]
    ended([False], [0], reqs)
    assert reqs[0].to_finish.message == MESSAGE and reqs[0].to_finish.status_code == 500
