"""Servers for tests that start without their imports: forks of a process that has made them. On a CPU only.

SGLang imports 9,000 modules in each of a server's processes, 40 of the 50 seconds of processor time of a start. Here a
*template* process imports them once, for all servers of a pytest process. It never runs anything of SGLang, has one
thread, and a server's main process is a fork of it that goes on as `python -m MODULE ...` would.

What `multiprocessing` spawns from there is a fork too, but not of the main process, whose state a spawned one doesn't
have: of a second template, which was forked from the first before the main process ran anything. The rest is as it is
with spawn: arguments are pickled, `__main__` runs again, and the main process is the parent, so that it can wait for
its children and they see it die.

    python tests/warm_start.py SOCKET       # the template; SOCKET: the file descriptor of where it is asked for forks
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import gc
import importlib
import multiprocessing.process
import multiprocessing.util
import os
import pickle
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# Variables that SGLang reads when it needs them. One that it may read while it is imported makes a start a cold one.
READ_WHEN_USED = {"SGLANG_CUDA_COREDUMP_BEFORE_CRASH", "SGLANG_PYSPY_DUMP_BEFORE_CRASH"}
# What a server's processes import, of ours only what is there before a test breaks something (`servers.sabotaged`).
MODULES = (
    "sglang.srt.server_args",
    "sglang.srt.entrypoints.http_server",
    "sglang.srt.managers.scheduler",
    "sglang.srt.managers.detokenizer_manager",
    "sglang.srt.models.registry",
    "sglang.srt.managers.tp_worker",
    "sglang.srt.speculative.dflash_info_v2",
    "sglang.srt.speculative.draft_worker_common",
)
# Libraries start no thread while they are imported: those of OpenMP and OpenBLAS, and of Arrow's allocator.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
# What runs as `__main__`; what reads PROMETHEUS_MULTIPROC_DIR while it is imported, which a server sets for its
# children; and our entry point, which takes what tests break first.
MUST_NOT_BE_IMPORTED = {"sglang.launch_server", "prometheus_client", "sgl_proxythinker.plugin"}

_PR_SET_CHILD_SUBREAPER = 36
_LARGEST_REQUEST = 1 << 20  # bytes
_MOST_DESCRIPTORS = 64


class WarmProcess:
    """A process that a template has forked, with as much of `subprocess.Popen` as tests of servers use.

    Its parent is not this process, which is told when it ends, and how.
    """

    def __init__(self, command: Sequence[str], *, stdout: Any, stderr: int, env: Mapping[str, str], process_group: int):
        if stderr != subprocess.STDOUT or process_group:
            raise ValueError("both outputs go to one file, and the process leads a group")
        self.args = command
        self.returncode: int | None = None
        self.pid, self._told = _ask(_template(), command[1:], env, {1: stdout.fileno(), 2: stdout.fileno()})

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            if not (told := self._told.recv(_LARGEST_REQUEST)):
                raise RuntimeError(f"nobody is there to tell how process {self.pid} ended; {_last_words()}")
            self.returncode = int(told)
            self._told.close()
        return self.returncode


def can_start(command: Sequence[str], extra: Collection[str]) -> bool:
    """Whether a fork would be what the command starts: one of ours, with an environment that the template stands for.

    Args:
        command: a server's command line.
        extra: the names of variables that are set for this server alone.
    """
    is_launcher = command[0] == sys.executable and (
        command[1:3] == ["-m", "sglang.launch_server"] or command[1] != "-m"
    )
    return is_launcher and "--plugin" in command and READ_WHEN_USED.issuperset(extra)


_starting = threading.Lock()


def _template() -> socket.socket:
    with _starting:  # nodes of a server are started by several threads
        return _start_template()


@functools.cache
def _start_template() -> socket.socket:
    """Where this process's template is asked for forks; it ends when this process does."""
    from servers import clean_environment
    from sgl_proxythinker.launch import cpu

    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = clean_environment(cpu.ENVIRONMENT | ONE_THREAD)
    with its:
        subprocess.run(
            [sys.executable, __file__, str(its.fileno())], env=environment, cwd=ROOT, pass_fds=[its.fileno()],
            stdout=_template_log(), stderr=subprocess.STDOUT, process_group=0, check=True,
        )  # fmt: skip
    return ours


@functools.cache
def _template_log() -> Any:
    return tempfile.TemporaryFile("w+")


def _ask(
    template: socket.socket, arguments: Sequence[str], environment: Mapping[str, str], descriptors: Mapping[int, int]
) -> tuple[int, socket.socket]:
    """Let a template fork. Returns the process id of the fork, and where its exit code is told.

    Args:
        template: where it is asked.
        arguments: of an interpreter.
        environment: all of it.
        descriptors: files of this process, by the numbers that they have in the fork.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        request = pickle.dumps((list(arguments), dict(environment), os.getcwd(), list(descriptors)))
        socket.send_fds(template, [request], [its.fileno(), *descriptors.values()])
    if not (told := ours.recv(_LARGEST_REQUEST)):
        raise RuntimeError(f"no process was forked; {_last_words()}")
    return int(told), ours


def _last_words() -> str:
    _template_log().seek(0)
    return f"the processes that fork said:\n{_template_log().read()[-4000:]}"


# In a template and its forks.


def _import_all() -> None:
    """Have all modules that a server imports, and no thread."""
    sys.path[0] = str(ROOT)
    gc.disable()  # a quarter of the time: nothing that an import makes is garbage
    from sgl_proxythinker.launch import cpu

    cpu.install()
    for name in MODULES:
        importlib.import_module(name)
    processors = importlib.import_module("sglang.srt.multimodal.processors")
    for _, name, _ in pkgutil.iter_modules(processors.__path__, f"{processors.__name__}."):
        with contextlib.suppress(Exception):  # as SGLang does: what other models need may be missing
            importlib.import_module(name)
    from sgl_proxythinker.patches import RECORDS
    from sgl_proxythinker.upstream.record import Sources, read_definition

    for record in RECORDS:  # the files that a start reads are parsed once
        read_definition(Sources.installed(record.package).root, record.symbol)
    import setproctitle

    setproctitle.getproctitle()  # it finds its place behind the environment, which is replaced in forks
    gc.freeze()
    threads, early = len(os.listdir("/proc/self/task")), MUST_NOT_BE_IMPORTED & sys.modules.keys()
    if threads != 1 or early:
        raise RuntimeError(f"a fork would not be as a new process: {threads} threads, and imported were {early}")
    sys.stdout.flush()


def _serve_forks(requests: socket.socket, is_told_of_ends: bool) -> list[str]:
    """Fork for each request until nobody is there to ask. Returns in forks only, with the arguments of an interpreter.

    Between a template and its fork there is a process: it stays and tells how the fork ended, or it ends at once, and
    the fork's parent is the nearest ancestor that takes orphans.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes between
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, _LARGEST_REQUEST, _MOST_DESCRIPTORS)
        if not request:
            os._exit(0)
        if os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        between, channel = os.getpid(), socket.socket(fileno=descriptors.pop(0))
        arguments, environment, folder, numbers = pickle.loads(request)
        if pid := os.fork():
            if is_told_of_ends:
                os.setpgid(pid, pid)
            channel.send(str(pid).encode())
            if is_told_of_ends:
                channel.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
            os._exit(0)
        if is_told_of_ends:
            os.setpgid(0, 0)  # whoever is faster: nothing is forked from here into another group
        while not is_told_of_ends and os.getppid() == between:
            time.sleep(0.001)
        channel.close()
        requests.close()
        _become(environment, folder, dict(zip(numbers, descriptors, strict=True)))
        return arguments


def _become(environment: Mapping[str, str], folder: str, descriptors: Mapping[int, int]) -> None:
    """Have what a new process would have been given."""
    import numpy
    import torch

    above = max(descriptors) + 1
    moved = {number: fcntl.fcntl(now, fcntl.F_DUPFD_CLOEXEC, above) for number, now in descriptors.items()}
    for now in descriptors.values():
        os.close(now)
    for number, now in moved.items():
        os.dup2(now, number, inheritable=number <= 2)
        os.close(now)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    multiprocessing.process.ORIGINAL_DIR = folder
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))
    numpy.random.seed()
    gc.enable()


def _run(arguments: list[str]) -> None:
    """Go on as `python ARGUMENTS` does."""
    match arguments:
        case ["-c", program, *rest]:
            sys.argv = ["-c", *rest]
            exec(program, {"__name__": "__main__"})
        case ["-m", module, *rest]:
            sys.path[0], sys.argv = os.getcwd(), [module, *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case [script, *rest]:
            sys.path[0], sys.argv = str(Path(script).parent), [script, *rest]
            runpy.run_path(script, run_name="__main__")


def _spawn_by_forks() -> None:
    """Let what `multiprocessing` spawns from now on, in this process, be forks of what this process is now."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        _run(_serve_forks(its, is_told_of_ends=False))
        sys.exit()
    its.close()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    spawn = multiprocessing.util.spawnv_passfds

    def fork(path: bytes, command: Sequence[str], descriptors: Collection[int]) -> int:
        if "--multiprocessing-fork" not in command:  # the resource tracker
            return spawn(path, command, descriptors)
        program = command[command.index("-c") :]  # after what the interpreter was told, which this one was told, too
        pid, channel = _ask(ours, program, os.environ, {number: number for number in {0, 1, 2, *descriptors}})
        channel.close()
        return pid

    multiprocessing.util.spawnv_passfds = fork


if __name__ == "__main__":
    asked = socket.socket(fileno=int(sys.argv[1]))
    if os.fork():
        os._exit(0)  # nobody's child: an `Engine` that is shut down ends all that its process, a test's, has started
    _import_all()
    of_server = _serve_forks(asked, is_told_of_ends=True)
    _spawn_by_forks()
    _run(of_server)
