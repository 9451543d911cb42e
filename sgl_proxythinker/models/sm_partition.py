"""The part of a GPU that the small models beside the base decode on."""

from __future__ import annotations

import logging
import math

import torch

logger = logging.getLogger(__name__)

# Green contexts of compute capability 9 are made of so many; those of earlier ones of fewer, which divide it.
GRANULE = 8
# NCCL's kernels wait for those of other ranks, and hold up to 32 SMs meanwhile.
LEAST_WITH_COLLECTIVES = 32
# With more rows a step is bound by arithmetic too, for which the whole GPU is faster. Measured with 32B and 7B it is up
# to 3 % slower with few rows, the same or 1 % slower with 64, 3 and 5 % faster with 128 and 256 (benchmarks/LOG.md).
MOST_ROWS = 64


def sms_by_weights(weight_bytes: int, base_weight_bytes: int, sm_count: int, has_collectives: bool) -> int:
    """SMs on which the small models' decode steps take as long as the base's beside them.

    A decode step of few rows is bound by the bytes of its weights. On the whole GPU a small model ends in the first
    half of the base's step (benchmarks/LOG.md), and what the base leaves idle after that is lost.

    Args:
        weight_bytes: the small models' on this rank, together.
        base_weight_bytes: the base's on this rank.
        sm_count: of the GPU.
        has_collectives: they talk to other ranks' in a step.

    Returns:
        Their share by bytes, rounded up to a multiple of `GRANULE`, from `GRANULE` or `LEAST_WITH_COLLECTIVES` on, and
        never the whole GPU.
    """
    share = sm_count * weight_bytes / (weight_bytes + base_weight_bytes)
    least = LEAST_WITH_COLLECTIVES if has_collectives else GRANULE
    return min(max(math.ceil(share / GRANULE) * GRANULE, least), (sm_count - 1) // GRANULE * GRANULE)


def stream_on(sms: int, device: int) -> torch.cuda.Stream | None:
    """A stream whose kernels run on `sms` SMs of a GPU, also when they are replayed from a graph on another stream.

    Returns:
        None where there is no such stream (CUDA driver before 12.4, another vendor's GPU): only speed is lost.
    """
    total = torch.cuda.get_device_properties(device).multi_processor_count
    try:
        # Can be imported on a machine with a GPU only.
        from sgl_kernel.spatial import create_greenctx_stream_by_value

        return create_greenctx_stream_by_value(sms, total - sms, device)[0]
    except (ImportError, RuntimeError) as error:
        logger.info("proxythinker: no partition of the GPU, small models decode on all of it: %s", error)
        return None
