"""Compile SGLang's kernels for Hopper on a machine without a GPU, so that test servers on one needn't.

    python -m benchmarks.sglang_kernels bundle/kernels      # nvcc of CUDA 13; a quarter of an hour, most of it Marlin's
    mkdir -p ~/.cache/tvm-ffi && cp -r bundle/kernels/. ~/.cache/tvm-ffi/       # there, before the first server

SGLang compiles what it needs when a server starts, and servers that start together wait for each other. It finds what
is there by a hash of the sources, the chip and the version of tvm-ffi: compile with the SGLang that will run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

HOPPER = 9, 0
ROW_BYTES = 64, 128, 256, 1024, 2048  # of a token's keys, or values, on a rank: random triples, 7B and 32B


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sglang_kernels", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    if shutil.which("nvcc") is None:
        sys.exit("There is no nvcc: it comes with CUDA's toolkit.")
    os.environ["TVM_FFI_CACHE_DIR"] = str(folder)
    from sglang.kernels.jit.utils import arch

    with arch.override_jit_cuda_arch(*HOPPER):
        for compile_one in tqdm(list(kernels()), unit="kernel"):
            compile_one()
    for left in folder.glob("*/*.o"):
        left.unlink()


def kernels() -> Iterator[Callable[[], Any]]:
    """What servers of the tests and benchmarks compile, the slowest last."""
    import torch
    from sglang.kernels.ops.activation import activation
    from sglang.kernels.ops.attention import clamp_position, rope
    from sglang.kernels.ops.kvcache import kvcache
    from sglang.kernels.ops.quantization import awq_dequantize, awq_marlin_repack, gptq_marlin, gptq_marlin_repack

    for row_bytes in ROW_BYTES:
        yield lambda row_bytes=row_bytes: kvcache._jit_kvcache_module(row_bytes, row_bytes)
    for dtype in (torch.float16, torch.bfloat16):
        yield lambda dtype=dtype: activation.activation_module(dtype)
    yield rope._jit_rotary_embedding_module
    yield lambda: clamp_position._jit_clamp_position_module(torch.int64)
    yield awq_marlin_repack._jit_awq_marlin_repack_module
    yield gptq_marlin_repack._jit_gptq_marlin_repack_module
    for dtype in (torch.float16, torch.bfloat16):
        yield lambda dtype=dtype: awq_dequantize._jit_awq_dequantize_module(dtype)
        yield lambda dtype=dtype: gptq_marlin._jit_gptq_marlin_module(dtype)


if __name__ == "__main__":
    main()
