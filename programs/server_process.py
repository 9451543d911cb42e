"""A server as a child process: started, waited for, and ended with everything that it spawned.

Standard library only: evaluations run it in environments that have no SGLang.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

# The log line, not /health: a server answers /health before its warm-up request is done.
READY = "The server is fired up"

_reserved: list[socket.socket] = []


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    start: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, which may not be ready yet, until the block ends.

    Args:
        command: its command line.
        log: the file of all that it prints.
        env: its environment; None: this process's.
        start: what starts a process, called as `subprocess.Popen` is.
    """
    with log.open("wb") as output:
        # A group of its own, so that it can be ended with everything it spawned; not a session of its own, which would
        # outlive a command that ran into its time limit.
        process = start(command, stdout=output, stderr=subprocess.STDOUT, env=env, process_group=0)
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen) -> None:
    """Kill a process that leads a group, and its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until_ready(process: subprocess.Popen, log: Path, within_s: float) -> None:
    """Return when the server answers.

    Raises:
        RuntimeError: it ended before, or the time is over; the message holds the end of its log.
    """
    deadline = time.monotonic() + within_s
    while process.poll() is None and time.monotonic() < deadline:
        if READY in log.read_text(errors="replace"):
            return
        time.sleep(0.5)
    tail = log.read_text(errors="replace")[-4000:]
    raise RuntimeError(f"server not ready, exit code {process.poll()}; the end of {log}:\n{tail}")


def reserve_port() -> int:
    """A free TCP port of this host that no other caller is given, in any process, until this process ends.

    It is below the range from which outgoing connections take theirs. A server listens there about a minute after it is
    chosen, so looking whether it is free is not enough: a socket that never listens stays bound to it. Linux lets a
    server that sets SO_REUSEADDR, as all of them do, listen beside it, and refuses the port to the next `reserve_port`.
    """
    while True:
        port = random.randrange(20_000, 30_000)
        holder = _bind_everywhere(port)
        if holder is not None:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _reserved.append(holder)
            return port


def _bind_everywhere(port: int) -> socket.socket | None:
    # On all addresses: SGLang's ranks meet there, not on loopback alone.
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    holder = socket.socket(family)
    try:
        if family == socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        holder.bind(("", port))
    except OSError:
        holder.close()
        return None
    return holder
