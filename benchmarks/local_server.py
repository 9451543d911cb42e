"""A guided server of tiny models on this machine, as a process with children that can be watched."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests
import torch

from benchmarks.weightless import write_weightless
from sgl_proxythinker import tiny_family
from sgl_proxythinker.programs.random_triple import make_triple
from sgl_proxythinker.programs.server_process import reserve_port, running, wait_until_ready

START_WITHIN_S = 420
ON_GPU = torch.cuda.is_available()
# SGLang's normalisation kernels take 16 bits only on a GPU, and heads of 32 need other attention than the default.
DEVICE = (
    ("--dtype", "float16", "--attention-backend", "triton", "--mm-attention-backend", "sdpa",
     "--sampling-backend", "pytorch")
    if ON_GPU
    else ("--dtype", "float32")
)  # fmt: skip
WEIGHTLESS = ("--load-format", "dummy", "--dtype", "bfloat16" if ON_GPU else "float32")
ADMIN_KEY = "known-to-no-client"


@dataclass(frozen=True)
class Watched:
    """A server and its processes as they were when it was ready; none where only its address is known."""

    url: str
    processes: tuple[psutil.Process, ...] = ()
    log: Path | None = None

    def ended(self) -> list[str]:
        """The processes that are no longer there."""
        return [f"{process.pid} ({name})" for process, name in zip(self.processes, self.names(), strict=True)
                if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE]  # fmt: skip

    def names(self) -> list[str]:
        """What each process is, by its place: psutil has no name of an ended one."""
        return [_NAMES.get(process.pid, "process") for process in self.processes]

    def load(self) -> dict[str, int]:
        """Running and waiting requests, and KV tokens in use, summed over the schedulers."""
        loads = requests.get(f"{self.url}/v1/loads", timeout=30).json()["loads"]
        names = ("num_running_reqs", "num_waiting_reqs", "num_used_tokens")
        return {name: sum(load[name] for load in loads) for name in names}


_NAMES: dict[int, str] = {}


def watch(url: str, pid: int | None = None, log: Path | None = None) -> Watched:
    """A running server; with the id of its main process, also that one and all of its children."""
    if pid is None:
        return Watched(url, log=log)
    main = psutil.Process(pid)
    processes = [main, *main.children(recursive=True)]
    for process in processes:
        words = process.cmdline()
        _NAMES[process.pid] = "server" if process is main else (words[0] if len(words) == 1 else process.name())
    # Helpers of Python's multiprocessing and of torch's compiler hold no request, and end when they like; those that
    # try grammars are there to be ended by one.
    helpers = ("resource_tracker", "compile_worker", "grammar_process")
    kept = [process for process in processes if not any(name in " ".join(process.cmdline()) for name in helpers)]
    return Watched(url, tuple(kept), log)


def named_models(name: str, folder: Path) -> list[str]:
    """Flags of three models and of what they need on this device.

    Args:
        name: `family`, the tiny trained one that comes with the package; `random`, a tiny triple whose tokens depend on
            pictures and on alpha; or `weightless:BASE:PROXY`, published dimensions without weights, for a GPU.
        folder: where models are written.
    """
    tokens = ("--max-total-tokens", "65536" if ON_GPU else "16384")
    match name.split(":"):
        case ["family"]:
            return [*_models(tiny_family.BASE, tiny_family.EXPERT, tiny_family.AMATEUR), *DEVICE, *tokens]
        case ["random"]:
            triple = make_triple(folder)
            return [*_models(triple.base, triple.expert, triple.amateur), *DEVICE, *tokens]
        case ["weightless", base, proxy]:
            sizes = {"base": base, "expert": proxy, "amateur": proxy}
            return [*_models(*(write_weightless(folder / role, size) for role, size in sizes.items())), *WEIGHTLESS]
    raise SystemExit(f"--models {name}: it is family, random or weightless:BASE:PROXY, such as weightless:7B:3B.")


def _models(base: Path, expert: Path, amateur: Path) -> list[str]:
    return ["--model-path", str(base), "--proxy-expert-path", str(expert), "--proxy-amateur-path", str(amateur)]


@contextlib.contextmanager
def serving(models: list[str], *flags: str, log: Path | None = None) -> Iterator[Watched]:
    """Serve until the block ends. Routes that act on the server need a key that nobody is told.

    Args:
        models: flags that name the models (`named_models`).
        flags: further ones; of a flag that is given twice, the last counts.
        log: its log file.

    Raises:
        RuntimeError: it ended before it was ready; the message holds the end of its log.
    """
    port = reserve_port()
    log = log or Path(tempfile.mkdtemp(prefix="proxythinker-")) / "server.log"
    command = [
        sys.executable, "-m", "sglang.launch_server", "--plugin", "proxythinker", *models, *flags,
        "--admin-api-key", ADMIN_KEY, "--host", "127.0.0.1", "--port", str(port), "--nccl-port", str(reserve_port()),
    ]  # fmt: skip
    with running(command, log) as process:
        wait_until_ready(process, log, START_WITHIN_S)
        yield watch(f"http://127.0.0.1:{port}", process.pid, log)
