"""SGLang's own `bench_serving`, on a machine that lacks what it imports and an image benchmark does not use.

    python -m benchmarks.bench_client --backend sglang-oai-chat --dataset-name image ...

Flags are those of `python -m sglang.benchmark.serving`, which older releases call `sglang.bench_serving`.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

from sgl_proxythinker.launch import cpu


def stand_in_for_datasets() -> None:
    """Hugging Face's `datasets` downloads MMMU for another benchmark, whose module is imported with all others."""
    stand_in = ModuleType("datasets")
    stand_in.__spec__ = ModuleSpec("datasets", None)  # asked for by those who look whether a package is there
    stand_in.load_dataset = None
    sys.modules["datasets"] = stand_in


if __name__ == "__main__":
    if cpu.is_needed(None):
        cpu.install()
    if find_spec("datasets") is None:
        stand_in_for_datasets()
    from sglang.benchmark.serving import cli_main

    cli_main()
