"""A plugin of pytest: each of pytest-xdist's workers has another GPU first, and the others after it.

So servers of one rank are spread over all GPUs, and those of several ranks have several.
"""

from __future__ import annotations

import os

from benchmarks.conditions import query_gpus

_VISIBLE, _WORKER = "CUDA_VISIBLE_DEVICES", "PYTEST_XDIST_WORKER"


def offered_gpus() -> dict[str, str]:
    """What to add to the environment of workers: the GPUs that CUDA's variable names, else all of the machine."""
    if os.environ.get(_VISIBLE):
        return {}
    gpus = [gpu["index"] for gpu in query_gpus("index")]
    return {_VISIBLE: ",".join(gpus)} if gpus else {}


def _take_gpu() -> None:
    worker, gpus = os.environ.get(_WORKER), os.environ.get(_VISIBLE, "").split(",")
    if worker is not None and gpus != [""]:
        first = int(worker.removeprefix("gw")) % len(gpus)
        os.environ[_VISIBLE] = ",".join(gpus[first:] + gpus[:first])


_take_gpu()  # when the worker loads its plugins: before a test module asks CUDA which GPUs there are
