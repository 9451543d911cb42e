"""Which multiprocessors a GPU runs a kernel on. Needs triton: imported by tests of a GPU only."""

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import smid

PROGRAMS = 4096  # enough to fill a GPU several times


@triton.jit
def _write_sm(out, spins: tl.constexpr):
    program = tl.program_id(0)
    value = program
    for _ in range(spins):  # long enough that no multiprocessor ends before the last one has begun
        value = value * 1664525 + 1013904223
    tl.store(out + tl.num_programs(0) + program, value)
    tl.store(out + program, smid())


def launch() -> torch.Tensor:
    """Queues the kernel on the current stream. Returns what it fills: [2, PROGRAMS] int32, the first row the SMs."""
    out = torch.empty(2, PROGRAMS, dtype=torch.int32, device="cuda")
    _write_sm[(PROGRAMS,)](out, spins=2000)
    return out
