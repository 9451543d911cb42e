"""A server for an evaluation: started with another interpreter than the client's, ended with everything it spawned."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sgl_proxythinker.programs.server_process import reserve_port, running, wait_until_ready

START_WITHIN_S = 600
# On a GPU, SGLang's kernels take 16 bits, and heads of 32 need other attention than the default.
# Small pools, so that several servers fit on one device.
GPU_FLAGS = (
    "--dtype float16 --attention-backend triton --mm-attention-backend sdpa --sampling-backend pytorch "
    "--max-total-tokens 131072 --cuda-graph-max-bs-decode 128"
)
CPU_FLAGS = "--dtype float32 --max-total-tokens 16384"


@dataclass(frozen=True)
class Launch:
    """How servers are started here."""

    family: Path  # holds base, expert and amateur; maybe the specialist
    python: str  # with SGLang and the plugin
    environment: dict[str, str]  # beside this process's own
    flags: list[str]  # beside the device's
    logs: Path  # folder of the servers' logs

    def run_module(self, module: str) -> str:
        """What a module prints under the server's interpreter."""
        done = subprocess.run(
            [self.python, "-m", module], env=self._environment(), stdout=subprocess.PIPE, text=True, check=True
        )  # fmt: skip
        return done.stdout

    @contextlib.contextmanager
    def serving(self, server: str, copies: int) -> Iterator[list[str]]:
        """Serve the guided triple, or the role's model alone, `copies` times, until the block ends. Yields the URLs.

        Raises:
            RuntimeError: one ended before it was ready; the message holds the end of its log.
        """
        with contextlib.ExitStack() as stack:
            started = [stack.enter_context(self._started(server, copy)) for copy in range(copies)]
            for process, log, _ in started:
                wait_until_ready(process, log, START_WITHIN_S)
            yield [url for _, _, url in started]

    @contextlib.contextmanager
    def _started(self, server: str, copy: int) -> Iterator[tuple[subprocess.Popen, Path, str]]:
        port, log, gpus = reserve_port(), self.logs / f"server-{server}-{copy}.log", _gpus()
        spread = {"CUDA_VISIBLE_DEVICES": str(copy % gpus)} if gpus > 1 else {}
        command = [
            self.python, "-m", "sglang.launch_server", "--plugin", "proxythinker", *self._models(server),
            *(GPU_FLAGS if gpus else CPU_FLAGS).split(), *self.flags,
            "--host", "127.0.0.1", "--port", str(port), "--nccl-port", str(reserve_port()), "--random-seed", "1",
        ]  # fmt: skip
        with running(command, log, self._environment() | spread) as process:
            yield process, log, f"http://127.0.0.1:{port}"

    def _models(self, server: str) -> list[str]:
        if server != "guided":
            return ["--model-path", str(self.family / server)]
        expert, amateur = self.family / "expert", self.family / "amateur"
        paths = ["--proxy-expert-path", str(expert), "--proxy-amateur-path", str(amateur)]
        if (specialist := self.family / "specialist").exists():
            paths += ["--proxy-expert", f"{specialist.name}={specialist}"]
        return ["--model-path", str(self.family / "base"), *paths]

    def _environment(self) -> dict[str, str]:
        # The client's packages are not the server's.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return inherited | self.environment


def conditions(launch: Launch) -> dict:
    """Of the machine and the server, as `benchmarks.conditions` has them; asked for before a server takes the GPU."""
    return json.loads(launch.run_module("benchmarks.conditions").splitlines()[-1])


def _gpus() -> int:
    if not shutil.which("nvidia-smi"):
        return 0
    return len(subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines())
