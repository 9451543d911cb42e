"""A server that leaks a slot of KV ends: one that has answered many chats (`test_speculation.py`) has leaked none."""

from __future__ import annotations

import contextlib

import pytest
import requests

from servers import COMMON, EXIT_WITHIN_S, command, sabotaged, serving
from slot_watch import WATCHES_SLOTS

# After a cycle with a wrong draft, on one rank: what is done to a slot that is reserved for the chains of a
# request with this name: the server's warm-up leaks none, so that its start is seen.
LEAKS = """
import sgl_proxythinker.launch.processes as processes

_prepare = processes._prepare


def prepare(server_args):
    _prepare(server_args)
    if hasattr(server_args, "_proxythinker"):
        from sgl_proxythinker.speculation.worker import SpeculativeWorker

        cycle = SpeculativeWorker._cycle

        def cycle_and_leak(worker, batch, drafts):
            result = cycle(worker, batch, drafts)
            if worker._target_worker.rank == {rank}:
                for req, count in zip(batch.reqs, result.accept_lens.tolist()):
                    if count <= drafts and req.kv is not None and req.rid.endswith(":leaks"):
                        last = req.kv.kv_allocated_len - 1
                        slots = worker.req_to_token_pool.req_to_token[req.req_pool_idx]
                        {leak}
            return result

        SpeculativeWorker._cycle = cycle_and_leak
        watch_slots()


{watch}

processes._prepare = prepare
"""
FORGOTTEN = "req.kv.kv_allocated_len = last"  # the next chain has another in its place
DOUBLED = "slots[last] = slots[last - 1]"  # one is freed twice and one never: what is counted stays as it was
BY_COUNT = "def watch_slots(): pass"  # SGLang's own check
DEDICATED = ("--tp-size", "3", "--proxy-placement", "dedicated")


@pytest.mark.parametrize(
    ("leak", "rank", "flags", "watch"),
    [
        pytest.param(DOUBLED, 0, (), WATCHES_SLOTS, id="doubled", marks=pytest.mark.xdist_group("leaks")),
        pytest.param(
            FORGOTTEN, 0, (), BY_COUNT, id="forgotten", marks=[pytest.mark.xdist_group("leaks"), pytest.mark.rare]
        ),
        pytest.param(
            FORGOTTEN, 1, DEDICATED, BY_COUNT, id="by the expert's rank",
            marks=[pytest.mark.xdist_group("ranks"), pytest.mark.rare],
        ),
        pytest.param(
            FORGOTTEN, 2, DEDICATED, BY_COUNT, id="by the amateur's rank",
            marks=[pytest.mark.xdist_group("ranks"), pytest.mark.rare],
        ),
    ],
)  # fmt: skip
def test_a_server_that_leaks_a_slot_of_a_wrong_draft_ends_once_nothing_runs(triple, tmp_path, leak, rank, flags, watch):
    """Models of a rank have their slots in common; ranks without the base have pools and a scheduler of their own."""
    arguments = command(triple.base, (triple.expert, triple.amateur), *COMMON, *flags, "--proxy-speculate", "3")
    leaks = LEAKS.format(leak=leak, rank=rank, watch=watch)
    params = {"max_new_tokens": 24, "ignore_eos": True, "temperature": 1}
    with serving(sabotaged(tmp_path, leaks, arguments), tmp_path / "log") as server:
        with contextlib.suppress(requests.RequestException):  # its end may come before the answer is sent
            server.post("/generate", {"text": "Say", "rid": "leaks", "sampling_params": params})
        assert server.process.wait(EXIT_WITHIN_S) != 0
        assert "pool memory leak detected!" in server.log_text()
