"""Models that decode at the same time, on CUDA streams of their own, say what they say in turn.

`--proxy-streams off` runs them in turn: what differs with it on beyond rounding is a race.
"""

from __future__ import annotations

import random

import pytest
import torch

from cases import close_call
from servers import COMMON, ON_GPU, Server, command, sabotaged, serving

pytestmark = [pytest.mark.xdist_group("streams"), pytest.mark.skipif(not ON_GPU, reason="streams need a GPU")]

STEPS = 2_000
MOST_ROWS = 128
MOST_TOKENS = 64  # of an answer
ALPHAS = (0.0, 0.25, 0.5, 1.0, 2.0)
FLAGS = (
    *COMMON, "--max-total-tokens", "32768", "--max-running-requests", str(MOST_ROWS), "--cuda-graph-max-bs-decode",
    str(MOST_ROWS),
)  # fmt: skip

# Tells which streams a step was run on and beside, once there has been a step on all of them.
TELLS_ITS_STREAMS = """
from sgl_proxythinker.patches import scheduler_process_batch_result as patch
around = patch.around
told = []
def tell(original, scheduler, batch, result):
    if batch.forward_mode.is_decode() and not told:
        relay = getattr(scheduler.future_map, "fwd_prepare_d2h_stream", None)
        streams = {
            "schedule": scheduler.schedule_stream, "copy": scheduler.copy_stream, "relay": relay,
            "base": scheduler.forward_stream, **scheduler.tp_worker.ensemble._streams,
        }
        told.append({str(name): stream.cuda_stream for name, stream in streams.items() if stream is not None})
        print(f"streams: {told[0]}", flush=True)
    return around(original, scheduler, batch, result)
patch.around = tell
"""


def batches() -> list[list[dict]]:
    """Random batches of 1 to 128 rows whose longest answers have `STEPS` tokens together; each a list of requests."""
    at_random = random.Random(11)
    made, steps = [], 0
    while steps < STEPS:
        rows = at_random.choice([1, 2, 3, at_random.randint(1, MOST_ROWS), MOST_ROWS])
        made.append(
            [
                {
                    "text": f"Say number {at_random.randrange(10**6)}",
                    "sampling_params": {
                        "temperature": 0,
                        "ignore_eos": True,
                        "max_new_tokens": at_random.randint(1, MOST_TOKENS),
                        "custom_params": {"proxy_alpha": at_random.choice(ALPHAS)},
                    },
                }
                for _ in range(rows)
            ]
        )
        steps += max(request["sampling_params"]["max_new_tokens"] for request in made[-1])
    return made


def replay(server: Server) -> list[list[int]]:
    """The tokens of every answer, one batch after the other."""
    answers = []
    for batch in batches():
        asked = {name: [request[name] for request in batch] for name in ("text", "sampling_params")}
        answers += [answer["output_ids"] for answer in server.generate(**asked)]
    return answers


@pytest.fixture(scope="module")
def in_turn(triple, tmp_path_factory) -> list[list[int]]:
    arguments = command(triple.base, (triple.expert, triple.amateur), *FLAGS, "--proxy-streams", "off")
    with serving(arguments, tmp_path_factory.mktemp("in_turn") / "log") as server:
        return replay(server)


@pytest.fixture(scope="module")
def at_once(triple, tmp_path_factory):
    folder = tmp_path_factory.mktemp("at_once")
    arguments = sabotaged(folder, TELLS_ITS_STREAMS, command(triple.base, (triple.expert, triple.amateur), *FLAGS))
    with serving(arguments, folder / "log") as server:
        yield server


def test_the_same_tokens_as_in_turn(at_once, in_turn, reference):
    """Up to a close call, where 16 bits may choose either: the two servers' batches are not of the same rows."""
    requests = [request for batch in batches() for request in batch]
    together = replay(at_once)
    assert [len(tokens) for tokens in together] == [
        request["sampling_params"]["max_new_tokens"] for request in requests
    ]
    same = 0
    for request, one, other in zip(requests, together, in_turn, strict=True):
        if one == other:
            same += 1
            continue
        alpha = request["sampling_params"]["custom_params"]["proxy_alpha"]
        place = next(place for place, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
        row = reference.fused_logits(request["text"], [], one[:place], alpha=alpha)[-1]
        gap = (row.max() - row[[one[place], other[place]]]).max().item()
        assert gap <= close_call(alpha), f"{request} at token {place}: {one[place]}, in turn {other[place]}, {gap:.4f}"
    assert same > len(requests) // 8, "else close calls hide what this is to find"


def test_all_streams_that_are_used_at_once_are_different_ones(at_once):
    """PyTorch hands out 32 in turn: the 33rd is the first again, and what runs on both runs in turn."""
    at_once.generate(text="Hi", sampling_params={"temperature": 0, "max_new_tokens": 8})
    [told] = [line for line in at_once.log_text().splitlines() if line.startswith("streams: {")]
    streams = eval(told.removeprefix("streams: "), {"__builtins__": {}})
    default = torch.cuda.default_stream().cuda_stream
    assert {"schedule", "copy", "base", "expert", "amateur"} <= streams.keys()
    assert len({default, *streams.values()}) == len(streams) + 1, streams
