"""Buffers of megabytes that come again with every picture cost no page faults."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.heavy

FAULTS = """
import resource, sys
from sgl_proxythinker.launch.malloc import keep_large_buffers
if sys.argv[1] == "ours":
    keep_large_buffers()
def buffers():
    kept = [b"x" * (5 << 20) for _ in range(4)]
buffers()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    buffers()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 10 * 4 * (5 << 20) // 4096


def faults(mode, **environment):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    run = [sys.executable, "-c", FAULTS, mode]
    return int(subprocess.run(run, env=env | environment, check=True, capture_output=True, text=True).stdout)


def test_freed_buffers_are_used_again():
    assert faults("ours") < PAGES // 20


@pytest.mark.parametrize(
    "setting",
    [
        {"MALLOC_TRIM_THRESHOLD_": "1048576"},
        {"MALLOC_MMAP_THRESHOLD_": "1048576"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1048576"},
    ],
)
def test_what_the_user_has_set_stays(setting):
    assert faults("ours", **setting) > PAGES // 2
