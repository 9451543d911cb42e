"""Ranks that disagree about a request end the server; ranks that agree answer it once."""

import logging
import multiprocessing
from types import SimpleNamespace

import pytest

from sgl_proxythinker.programs.server_process import reserve_port


def run_rank(rank, world, port, failing, pipe):
    import torch

    from sgl_proxythinker.guards import bad_requests

    logging.disable()
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    sent = []
    scheduler = SimpleNamespace(
        tokenizer=None, model_config=SimpleNamespace(vocab_size=8), dp_tp_cpu_group=torch.distributed.group.WORLD,
        ps=SimpleNamespace(tp_rank=rank), waiting_queue=[SimpleNamespace(rid="r"), SimpleNamespace(rid="other")],
        grammar_manager=SimpleNamespace(grammar_queue=[SimpleNamespace(rid="r")]),
        ipc_channels=SimpleNamespace(
            send_to_tokenizer=SimpleNamespace(send_output=lambda output, _: sent.append(output.finished_reason))
        ),
    )  # fmt: skip
    bad_requests.try_alone = lambda *args: None  # the request itself is of no interest here

    def handle():
        if rank in failing:
            raise KeyError("of this rank")

    try:
        bad_requests.receive(scheduler, SimpleNamespace(rid="r"), handle)
    except RuntimeError as error:
        pipe.send(("ended", str(error)))
    else:
        queues = scheduler.waiting_queue, scheduler.grammar_manager.grammar_queue
        pipe.send(([finish["status_code"] for finish in sent], [[req.rid for req in queue] for queue in queues]))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("failing", [(), (0, 1), (0,), (1,)], ids=["none", "both", "the first", "the second"])
def test_two_ranks(sglang, failing):
    import sgl_proxythinker.guards.bad_requests  # noqa: F401 -- once, before the fork

    port = reserve_port()
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe() for _ in range(2)]
    ranks = [
        context.Process(target=run_rank, args=(rank, 2, port, failing, pipes[rank][1]), daemon=True)
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    told = []
    for pipe, _ in pipes:
        assert pipe.poll(120), "a rank waits for ever"
        told.append(pipe.recv())
    for process in ranks:
        process.join(60)
    if not failing:
        assert told == [([], [["r", "other"], ["r"]])] * 2
    elif len(failing) == 2:
        assert told == [([400], [["other"], []])] * 2
    else:
        assert all(what == "ended" and "request r can't be taken on some of the ranks" in why for what, why in told)
