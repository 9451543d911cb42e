"""More ranks than GPUs: the launch of such a server is that of any other, also where a test breaks something first."""

import sys

import pytest

import servers
from servers import COMMON, command, sabotaged, serving

pytestmark = pytest.mark.xdist_group("ranks")

ONE_GPU = """
import os
import torch
from sgl_proxythinker.step import ensemble

torch.cuda.device_count = lambda: 1  # here is none, which the launch refuses
read = ensemble.Ensemble.forward

def read_aloud(self, *args, **kwargs):
    print(f"broken in {os.getpid()}\\n", end="", flush=True)  # one write: ranks share the log
    return read(self, *args, **kwargs)

ensemble.Ensemble.forward = read_aloud
"""


def test_what_a_launch_breaks_is_broken_in_its_ranks(triple, tmp_path):
    """Kills: ranks that begin with SGLang's launcher, and tests of broken servers over ranks that see a sound one."""
    if servers.all_cold:
        pytest.skip("this launcher is for GPUs: it imports SGLang before a CPU is prepared for (--cold)")
    flags = (*COMMON, "--tp-size", "2", "--proxy-placement", "shared")
    arguments = command(triple.base, (triple.expert, triple.amateur), *flags)
    shared = [sys.executable, "-m", "sgl_proxythinker.programs.shared_gpus", *arguments[3:]]
    with serving(sabotaged(tmp_path, ONE_GPU, shared), tmp_path / "log") as server:
        server.generate(text="Hi", sampling_params={"max_new_tokens": 2})
        lines = server.log_text().splitlines()
    assert len({line for line in lines if line.startswith("broken in ")}) == 2
