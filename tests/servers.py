"""Real servers for tests: started as a user starts them, on loopback, and ended with everything they spawned."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import psutil
import requests
import torch
from PIL import Image

import warm_start
from sgl_proxythinker.launch import cpu
from sgl_proxythinker.programs.pictures import data_url
from sgl_proxythinker.programs.server_process import reserve_port, running, wait_until_ready
from sgl_proxythinker.programs.shared_gpus import MEMORY_IS_SHARED

READY_WITHIN_S = 420  # imports in three to six processes on two busy cores; a bound, not a measurement
EXIT_WITHIN_S = 300

# On a GPU the same tests run with decode graphs and overlap. SGLang's normalisation kernels take 16 bits only there,
# and heads of 32 need other attention than the default. Servers of several workers share the cores, as those on a CPU
# do, which sleep by default.
ON_GPU = torch.cuda.is_available()
DEVICE = (
    ("--dtype", "float16", "--attention-backend", "triton", "--mm-attention-backend", "sdpa",
     "--sampling-backend", "pytorch", "--sleep-on-idle")
    if ON_GPU
    else ("--dtype", "float32")
)  # fmt: skip
ENGINE_DEVICE = {
    "dtype": "float16", "attention_backend": "triton", "mm_attention_backend": "sdpa", "sampling_backend": "pytorch",
} if ON_GPU else {"dtype": "float32"}  # fmt: skip
# What opens the routes that act on the whole server.
ADMIN_KEY = "of-these-tests"
WITH_KEY = {"Authorization": f"Bearer {ADMIN_KEY}"}
# Runs SGLang's launcher in a process (and, through spawn, its children) where something of ours was broken first.
SABOTAGE = """
import runpy, sys
import sgl_proxythinker.patches as patches
{sabotage}
if __name__ == "__main__":
    sys.argv[0] = "launch_server"
    runpy.run_module("{launcher}", run_name="__main__", alter_sys=False)
"""
# Small pools: the requests are small, and so is the host.
COMMON = (
    *DEVICE, "--max-total-tokens", "4096", "--max-running-requests", "64", "--random-seed", "1",
    "--admin-api-key", ADMIN_KEY,
)  # fmt: skip


def chat_messages(text: str, images: list[Image.Image] = ()) -> list[dict]:
    """One user turn: the images, then the text."""
    content = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]


@dataclass
class Server:
    """A running server and the clients that people use."""

    url: str
    log: Path
    process: subprocess.Popen = field(repr=False)
    other_nodes: list[Server] = field(default_factory=list, repr=False)  # of a server over several

    def post(self, route: str, body: Any, **options: Any) -> requests.Response:
        """With the admin key, which other routes than those it opens don't look at; `headers={}` leaves it out."""
        with self._tells_its_end():
            return requests.post(self.url + route, json=body, timeout=300, **{"headers": WITH_KEY, **options})

    def get(self, route: str, **options: Any) -> requests.Response:
        with self._tells_its_end():
            return requests.get(self.url + route, timeout=60, **{"headers": WITH_KEY, **options})

    @contextlib.contextmanager
    def _tells_its_end(self) -> Iterator[None]:
        try:
            yield
        except requests.ConnectionError as error:
            lines = self.log_text().splitlines()
            last = max((at for at, line in enumerate(lines) if "Traceback (most recent" in line), default=len(lines))
            error.add_note("\n".join(["Of its log:", *lines[last : last + 60], "...", *lines[-5:]]))
            raise

    def generate(self, **body: Any) -> Any:
        """POST /generate; the answer's JSON."""
        response = self.post("/generate", body)
        assert response.ok, response.text
        return response.json()

    def generate_at_once(self, texts: list[str], sampling_params: list[dict]) -> list[dict]:
        """One POST /generate for all: a busy host doesn't spread them, so that the first have ended before the last."""
        return self.generate(text=texts, sampling_params=sampling_params)

    def flush_cache(self) -> None:
        """Start with an empty radix tree. SGLang refuses it while the last answer's request is being put away."""
        flushed = self.post("/flush_cache?timeout=60", None)
        assert flushed.ok, flushed.text

    @property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0)

    def chat(self, messages: list[dict], alpha: float | None = None, **options: Any) -> dict:
        """One greedy answer by the OpenAI client, as a dict, with SGLang's `meta_info`."""
        extra = {"return_meta_info": True, **options.pop("extra_body", {})}
        if alpha is not None:
            extra["custom_params"] = {"proxy_alpha": alpha}
        options = {"temperature": 0, "max_tokens": 16, **options}
        return self.openai.chat.completions.create(
            model="default", messages=messages, extra_body=extra, **options
        ).model_dump()

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")


# Whether all servers start as a user starts them (`pytest --cold`), none as a fork (`warm_start`).
all_cold = False


def _starter(arguments: list[str], extra: dict[str, str] | None, cold: bool = False) -> Callable[..., Any]:
    is_warm = not (ON_GPU or cold or all_cold) and warm_start.can_start(arguments, extra or ())
    return warm_start.WarmProcess if is_warm else subprocess.Popen


# Drafts of each guided server under test that is not asked about its own, None for none (`pytest --speculate K`).
speculate: str | None = None


def told_speculation(flag: str | None) -> int | str:
    """What `/server_info` says of `--proxy-speculate FLAG`; None: of a server that `command` keeps from it."""
    return int(flag) if flag and flag.isdecimal() else flag or "off"


def command(base: Path, proxies: tuple[Path, Path] | None, *flags: str, drafts_by_default: bool = False) -> list[str]:
    """The command line of a server with our plugin; one that doesn't speculate says so.

    `drafts_by_default`: it says nothing of drafts, as most servers do.
    """
    if proxies and "--proxy-speculate" not in flags and not drafts_by_default:
        flags = (*flags, "--proxy-speculate", speculate or "off")
    if "--proxy-speculate" in flags and flags[flags.index("--proxy-speculate") + 1] != "off":
        flags = tuple(flag for flag in flags if flag != "--enable-mixed-chunk")  # the two don't go together
    paths = () if proxies is None else ("--proxy-expert-path", str(proxies[0]), "--proxy-amateur-path", str(proxies[1]))
    ranks = int(flags[flags.index("--tp-size") + 1]) if "--tp-size" in flags else 1
    # Nodes that are tried on one host number its GPUs alike.
    is_crowded = ON_GPU and (ranks > torch.cuda.device_count() or "--nnodes" in flags)
    launcher = "sgl_proxythinker.programs.shared_gpus" if is_crowded else "sglang.launch_server"
    return [
        sys.executable, "-m", launcher, "--plugin", "proxythinker", "--model-path", str(base), *paths, *flags
    ]  # fmt: skip


def sabotaged(folder: Path, sabotage: str, arguments: list[str]) -> list[str]:
    """A command line of `command` whose processes run `sabotage` first, with our `patches` at hand."""
    script = folder / "launch.py"
    script.write_text(SABOTAGE.format(sabotage=sabotage, launcher=arguments[2]))
    return [sys.executable, str(script), *arguments[3:]]


def clean_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """What a person's shell has: without what the CPU support has set in this process for an engine's test."""
    ours = set() if ON_GPU else {*cpu.ENVIRONMENT, "OMP_NUM_THREADS", "SGLANG_CPU_OMP_THREADS_BIND"}
    # Memory is shared by the servers of several workers.
    shared = MEMORY_IS_SHARED if ON_GPU else {}
    return {name: value for name, value in os.environ.items() if name not in ours} | shared | (extra or {})


@contextlib.contextmanager
def serving(
    arguments: list[str],
    log: Path,
    env: dict[str, str] | None = None,
    port: int | None = None,
    cold: bool = False,
) -> Iterator[Server]:
    """Run a server until the block ends; on a port that nobody else has, if none is named.

    With `--nnodes` each node is a process of its own, on an address and a port of its own. `cold`: its processes import
    all that they need, as a user's do.

    Raises:
        RuntimeError: it ended before it was ready; the message holds the end of its log.
    """
    environment = clean_environment(env)
    with contextlib.ExitStack() as stack:
        others = []
        for number, (of_node, address) in enumerate(nodes_of(arguments)):
            port_of_node = (port if not number else None) or reserve_port()
            log_of_node = log.with_name(f"{log.name}.node{number}") if number else log
            command_of_node = [*of_node, *_addresses(port_of_node, address)]
            start = _starter(arguments, env, cold)
            process = stack.enter_context(running(command_of_node, log_of_node, environment, start))
            others.append(Server(f"http://{address}:{port_of_node}", log_of_node, process))
        server = others.pop(0)
        server.other_nodes = others
        wait_until_ready(server.process, log, READY_WITHIN_S)
        yield server


def nodes_of(arguments: list[str]) -> list[tuple[list[str], str]]:
    """The command of each node and its address, both without a port of its own; node 0 first."""
    if "--nnodes" not in arguments:
        return [(arguments, "127.0.0.1")]
    nodes, meet_at = int(arguments[arguments.index("--nnodes") + 1]), f"127.0.0.1:{reserve_port()}"
    return [
        ([*arguments, "--node-rank", str(node), "--dist-init-addr", meet_at], f"127.0.0.{node + 1}")
        for node in range(nodes)
    ]


def is_running(process: psutil.Process) -> bool:
    """Whether a process that others may end, and wait for, has not ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def starting(arguments: list[str], log: Path, env: dict[str, str] | None = None, port: int | None = None) -> Any:
    """Run a launch, which is not waited for, until the block ends. Gives its process."""
    command_line = [*arguments, *_addresses(port or reserve_port())]
    return running(command_line, log, clean_environment(env), _starter(arguments, env))


def launch_and_wait(
    arguments: list[str], env: dict[str, str] | None = None, port: int | None = None
) -> tuple[int, str]:
    """Run a launch that must fail, on a port of its own or this one. Returns its exit code and all that it printed."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with starting(arguments, log, env, port) as process:
            code = process.wait(EXIT_WITHIN_S)
        return code, log.read_text(errors="replace")


def launch_nodes_and_wait(commands: list[list[str]], env: dict[str, str] | None = None) -> list[tuple[int, str]]:
    """Run a launch of several nodes that must fail. Returns each node's exit code and what it printed, node 0's first.

    Args:
        commands: of each node, of `nodes_of` or others.
    """
    with ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(lambda of_node: launch_and_wait(of_node, env), commands))


def _addresses(port: int, address: str = "127.0.0.1") -> tuple[str, ...]:
    # Left to itself, SGLang picks a port for its ranks a minute before it listens there; another server may be first.
    return ("--host", address, "--port", str(port), "--nccl-port", str(reserve_port()))
