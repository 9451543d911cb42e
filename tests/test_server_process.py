"""A port that is chosen now is still ours when a server listens on it, a minute later."""

from __future__ import annotations

import random
import socket
import subprocess
import sys

import pytest

from sgl_proxythinker.programs.server_process import reserve_port

pytestmark = pytest.mark.laws


@pytest.fixture
def always_first(monkeypatch):
    """`random.randrange` proposes these ports, whatever it is asked for."""

    def propose(*ports: int) -> None:
        proposals = iter(ports)
        monkeypatch.setattr(random, "randrange", lambda *_: next(proposals))

    return propose


def test_a_port_is_given_once(always_first):
    first, second = reserve_port(), reserve_port()
    always_first(first, second, 30_001)
    assert reserve_port() == 30_001


def test_other_processes_are_not_given_it():
    first = reserve_port()
    code = (
        "import random, sgl_proxythinker.programs.server_process as process\n"
        f"proposals = iter(({first}, 30_002))\n"
        "random.randrange = lambda *_: next(proposals)\n"
        "assert process.reserve_port() == 30_002"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("address", ["127.0.0.1", ""], ids=["loopback", "all"])
def test_a_server_may_listen_on_it(address):
    port = reserve_port()
    with socket.create_server((address, port)) as server:
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()


def test_a_port_where_somebody_listens_is_not_given(always_first):
    with socket.create_server(("127.0.0.1", 0)) as server:
        always_first(server.getsockname()[1], 30_003)
        assert reserve_port() == 30_003
