"""Laws of a kernel on a machine without a GPU: in triton's interpreter, in a process of its own.

What tells triton to interpret has to be set before it is imported, and would reach every test and server of a process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def assert_kernel_obeys(test_file: str) -> None:
    """Run the tests of a file whose names say `kernel`, interpreted."""
    pytest.importorskip("triton")
    # Without the conftest no lane has a name, and `--strict-markers` would refuse those that the file names.
    options = ("-k", "kernel", "--noconftest", "-o", "addopts=", "-q", "-p", "no:cacheprovider")
    run = subprocess.run(
        (sys.executable, "-m", "pytest", test_file, *options),
        cwd=Path(__file__).parents[1],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert " passed" in run.stdout, "no test was asked"
