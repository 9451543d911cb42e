"""SGLang's launcher, on which drafts count with a probability that a benchmark sets (`benchmarks.forced_acceptance`).

python -m benchmarks.accepting_server ARGUMENTS OF sglang.launch_server
"""

from __future__ import annotations

import runpy
import sys

from benchmarks.forced_acceptance import force_if_asked

force_if_asked()  # here: a spawned scheduler imports this module, and runs nothing of it

if __name__ == "__main__":
    sys.argv[0] = "launch_server"
    runpy.run_module("sglang.launch_server", run_name="__main__")
