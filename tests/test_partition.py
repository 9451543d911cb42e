"""Laws of the part of a GPU that a small model beside the base decodes on."""

import pytest

from sgl_proxythinker.partition import GRANULE, sms_by_weights

H200, GB = 132, 1 << 30
BASE = 32 * GB


@pytest.mark.parametrize("sm_count", [16, 108, 132, 148])
@pytest.mark.parametrize("weight_bytes", [1, GB, 15 * GB, BASE, 100 * GB])
def test_it_is_some_granules_and_never_the_whole_gpu(weight_bytes, sm_count):
    sms = sms_by_weights(weight_bytes, BASE, sm_count)
    assert sms % GRANULE == 0 and GRANULE <= sms < sm_count


def test_it_is_the_least_that_reads_the_share_of_bytes_in_time():
    for weight_bytes in range(GB, BASE, GB):
        share = H200 * weight_bytes / (weight_bytes + BASE)
        sms = sms_by_weights(weight_bytes, BASE, H200)
        assert sms - GRANULE < share <= sms
