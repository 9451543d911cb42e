"""A port in use is told before weights are read, and no other port is refused."""

import socket

import pytest

from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.launch.port import check_port
from sgl_proxythinker.programs.server_process import reserve_port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
@pytest.mark.parametrize("other", ["127.0.0.1", "0.0.0.0"])
def test_a_port_where_somebody_listens_is_refused(host, other):
    with socket.create_server((other, 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(LaunchError, match=f"--port {port} is in use.*another --port"):
            check_port({"host": host, "port": port})
    check_port({"host": host, "port": port})  # it has ended


def test_a_port_of_another_address_is_free():
    with socket.create_server(("127.0.0.2", 0)) as listening:
        check_port({"host": "127.0.0.3", "port": listening.getsockname()[1]})


def test_a_port_that_is_reserved_but_not_listened_on_is_free():
    check_port({"host": "127.0.0.1", "port": reserve_port()})


def test_a_port_is_free_while_connections_of_an_ended_server_linger():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        with socket.create_connection(address) as client:
            served, _ = listening.accept()
            served.close()  # the server's side closes first, so that it is the one that waits
            assert client.recv(1) == b""
    check_port({"host": address[0], "port": address[1]})


@pytest.mark.parametrize("given", [{}, {"host": "no.such.host.invalid", "port": 1}, {"host": "192.0.2.1", "port": 8}])
def test_other_faults_are_left_to_the_bind(given):
    check_port(given)
