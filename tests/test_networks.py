"""Two hosts with a network between them: each has interfaces, shared memory, IPC and a name of its own.

They are Linux namespaces, where this machine's users may make them. What nodes on one host could share unseen, these
can't: a picture in shared memory, a socket file, an address of the loopback.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cases import Case, assert_agrees
from servers import COMMON, READY_WITHIN_S, chat_messages, clean_environment, command
from sgl_proxythinker.programs.pictures import random_picture
from sgl_proxythinker.programs.random_triple import make_triple
from sgl_proxythinker.programs.reference_hf import Reference
from sgl_proxythinker.programs.server_process import end, running, wait_until_ready

_NAMESPACES = ("--net", "--mount", "--uts", "--ipc")
_FIRST, _SECOND, _PORT = "10.91.0.1", "10.91.0.2", "30000"
ENDS_WITHIN_S = 120
SILENT_FOR_S = 20
# Prints what a POST of its second argument answers.
ASK = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {"Content-Type": "application/json"})
sys.stdout.write(urllib.request.urlopen(request, timeout=300).read().decode())
"""


def may_make_networks() -> bool:
    if shutil.which("ip") is None or shutil.which("nsenter") is None or shutil.which("unshare") is None:
        return False
    try_it = ["unshare", "--map-root-user", *_NAMESPACES, "ip", "link", "add", "cable0", "type", "veth"]
    return subprocess.run(try_it, capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.xdist_group("ranks"),
    pytest.mark.rare,
    pytest.mark.skipif(not may_make_networks(), reason="users of this machine may not make networks"),
]


class Host:
    """Namespaces that are held by a process which sleeps."""

    def __init__(self, holder: subprocess.Popen):
        self._holder = holder

    def inside(self, *words: str) -> list[str]:
        enter = ["nsenter", "--target", str(self._holder.pid), "--user", "--preserve-credentials", *_NAMESPACES]
        return [*enter, *words]

    def run(self, *words: str) -> str:
        done = subprocess.run(self.inside(*words), capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def settle(self, name: str, interface: str, address: str, names: Path) -> None:
        self.run("mount", "-t", "tmpfs", "none", "/dev/shm")
        self.run("mount", "--bind", str(names), "/etc/hosts")
        self.run("hostname", name)
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "addr", "add", f"{address}/24", "dev", interface)
        self.run("ip", "link", "set", interface, "up")


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """With a cable between `cable0` of the first and `cable1` of the second."""
    names = folder / "hosts"
    names.write_text(f"127.0.0.1 localhost\n{_FIRST} host-a\n{_SECOND} host-b\n")
    with contextlib.ExitStack() as stack:
        outer = subprocess.Popen(["unshare", "--map-root-user", *_NAMESPACES, "sleep", "infinity"], process_group=0)
        stack.callback(end, outer)
        first = Host(outer)
        _wait_until(lambda: subprocess.run(first.inside("hostname", "host-a"), capture_output=True).returncode == 0)
        held = folder / "second"
        # The shell becomes the sleeper: its number outside is the holder's.
        inner = subprocess.Popen(
            first.inside("unshare", *_NAMESPACES, "sh", "-c", f"echo ready > {held}; exec sleep infinity"),
            process_group=0,
        )
        stack.callback(end, inner)
        _wait_until(held.exists)
        second = Host(inner)
        first.run("ip", "link", "add", "cable0", "type", "veth", "peer", "name", "cable1", "netns", str(inner.pid))
        first.settle("host-a", "cable0", _FIRST, names)
        second.settle("host-b", "cable1", _SECOND, names)
        yield first, second


def _wait_until(is_so, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def triple(tmp_path_factory):
    return make_triple(tmp_path_factory.mktemp("networks"))


def test_pictures_cross_a_network_and_a_cable_that_is_pulled_ends_both(triple, tmp_path):
    reference = Reference(triple.base, triple.expert, triple.amateur)
    flags = (*COMMON, "--tp-size", "4", "--nnodes", "2", "--watchdog-timeout", str(SILENT_FOR_S), "--port", _PORT,
             "--dist-init-addr", f"{_FIRST}:29500")  # fmt: skip
    arguments = command(triple.base, (triple.expert, triple.amateur), *flags)
    logs = tmp_path / "log", tmp_path / "log.node1"
    with two_hosts(tmp_path) as hosts, contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(
                running(host.inside(*arguments, "--node-rank", str(node), "--host", address), log, clean_environment())
            )
            for node, (host, address, log) in enumerate(zip(hosts, (_FIRST, _SECOND), logs, strict=True))
        ]
        wait_until_ready(nodes[0], logs[0], READY_WITHIN_S)
        for seed, alpha in ((1, 0.0), (1, 1.5), (2, 0.5)):
            picture = random_picture(seed)
            messages = chat_messages("Which?", [picture])
            body = {"model": "default", "messages": messages, "temperature": 0, "max_tokens": 16, "logprobs": True,
                    "custom_params": {"proxy_alpha": alpha}, "return_meta_info": True}  # fmt: skip
            url = f"http://{_FIRST}:{_PORT}/v1/chat/completions"
            answer = json.loads(hosts[0].run(sys.executable, "-c", ASK, url, json.dumps(body)))
            oracle = reference.generate(messages, [picture], alpha=alpha, max_new_tokens=16)
            assert_agrees(answer, oracle, Case("Which?", (picture,), alpha), reference)
        hosts[0].run("ip", "link", "set", "cable0", "down")
        assert all(node.wait(ENDS_WITHIN_S) != 0 for node in nodes)
    told = [log.read_text(errors="replace") for log in logs]
    assert f"nothing has been heard of node 1 (host-b) for {SILENT_FOR_S} s" in told[0]
    assert f"nothing has been heard of node 0 (host-a) for {SILENT_FOR_S} s" in told[1]
