"""What is ready is sent before the next prefill is launched, where that one waits for it anyway."""

from __future__ import annotations

import pytest

from cases import Case, ask_all
from servers import COMMON, Server, command, sabotaged, serving
from sgl_proxythinker.programs.pictures import random_picture

pytestmark = pytest.mark.xdist_group("prefill_order")

TELLS_ITS_ORDER = """
import sgl_proxythinker.launch.processes as processes

prepare_process = processes._prepare

def prepare(server_args):
    prepare_process(server_args)
    if hasattr(server_args, "_proxythinker"):
        from sglang.srt.managers.scheduler import Scheduler

        def aloud(kind, name, event):
            original = getattr(kind, name)

            def told(self, batch, *args, **kwargs):
                if batch.forward_mode.is_extend():
                    print("told: " + event, flush=True)
                return original(self, batch, *args, **kwargs)

            setattr(kind, name, told)

        aloud(Scheduler, "run_batch", "launched")
        aloud(Scheduler, "process_batch_result", "processed")

processes._prepare = prepare
"""
CHUNK = 64  # tokens


@pytest.fixture(scope="module")
def server(triple, tmp_path_factory):
    folder = tmp_path_factory.mktemp("order")
    arguments = command(triple.base, (triple.expert, triple.amateur), *COMMON, "--chunked-prefill-size", str(CHUNK))
    with serving(sabotaged(folder, TELLS_ITS_ORDER, arguments), folder / "log") as server:
        yield server


def order_of(server: Server, case: Case) -> list[str]:
    """Of the prefills of one prompt, which is read in chunks."""
    before = len(server.log_text())
    [answer] = ask_all(server, [case])
    assert answer["usage"]["prompt_tokens"] > 2 * CHUNK
    told = [line for line in server.log_text()[before:].splitlines() if line.startswith("told: ")]
    return [line.removeprefix("told: ") for line in told]


def test_a_prefill_with_pictures_is_launched_when_the_one_before_it_is_processed(server):
    """Kills: first tokens that wait until pictures of others are embedded, and half of their prefill is done."""
    pictures = tuple(random_picture(151 + place, 224, 224) for place in range(3))
    order = order_of(server, Case("Compare them.", pictures, 0.5))
    assert len(order) >= 6 and order == ["launched", "processed"] * (len(order) // 2), order


LONG = "What is the answer to this question? " * 40
OTHERS = {
    "a text": Case(LONG, (), 0.5),
    "the base alone": Case("Compare them.", tuple(random_picture(seed, 224, 224) for seed in (161, 162, 163)), 0.0),
    "a text behind a picture": Case(LONG, (random_picture(164, 56, 56),), 0.5),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_prefills_overlap_as_sglangs_do(server, name):
    """Kills: a rule for all prefills, or for all of a request with a picture; the device has work between them."""
    order = order_of(server, OTHERS[name])
    assert order[:3] == ["launched", "launched", "processed"], order
