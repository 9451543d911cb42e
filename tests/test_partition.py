"""Laws of the part of a GPU that the small models beside the base decode on."""

import pytest
import torch

from servers import ON_GPU
from sgl_proxythinker.models.sm_partition import GRANULE, sms_by_weights, stream_on

H200, GB = 132, 1 << 30
BASE = 32 * GB


@pytest.mark.parametrize("sm_count", [16, 108, 132, 148])
@pytest.mark.parametrize("weight_bytes", [1, GB, 15 * GB, BASE, 100 * GB])
@pytest.mark.parametrize("has_collectives", [False, True])
def test_it_is_some_granules_and_never_the_whole_gpu(weight_bytes, sm_count, has_collectives):
    sms = sms_by_weights(weight_bytes, BASE, sm_count, has_collectives)
    assert sms % GRANULE == 0 and GRANULE <= sms < sm_count


def test_models_that_wait_for_other_ranks_keep_room_for_their_collectives():
    """72B and 3B over four ranks would be 8 SMs by bytes."""
    assert sms_by_weights(int(1.6 * GB), 36 * GB, H200, False) == 8
    assert sms_by_weights(int(1.6 * GB), 36 * GB, H200, True) == 32
    assert sms_by_weights(BASE, BASE, H200, True) == sms_by_weights(BASE, BASE, H200, False), "more than that already"


def test_it_is_the_least_that_reads_the_share_of_bytes_in_time():
    for weight_bytes in range(GB, BASE, GB):
        share = H200 * weight_bytes / (weight_bytes + BASE)
        sms = sms_by_weights(weight_bytes, BASE, H200, False)
        assert sms - GRANULE < share <= sms


@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
def test_a_graph_stays_on_the_part_that_it_was_captured_on():
    """On whichever stream it is replayed: a step replays small models' graphs on streams of the whole GPU."""
    from used_sms import launch

    def replayed(stream: torch.cuda.Stream) -> int:
        launch()  # compiled before the capture
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            out = launch()
        with torch.cuda.stream(torch.cuda.Stream()):
            graph.replay()
        torch.cuda.synchronize()
        return len(out[0].unique())

    sm_count = torch.cuda.get_device_properties(0).multi_processor_count
    part = stream_on(32, 0)
    assert part is not None, "the GPUs that are tested have such streams"
    assert replayed(part) == 32 and replayed(torch.cuda.Stream()) == sm_count
