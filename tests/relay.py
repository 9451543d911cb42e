"""A door to a server that can be shut, so that clients see one that is gone without ending it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit


class Relay:
    """Passes bytes between clients and a server, both ways, while it is open.

    Args:
        url: the server's.
        port: where clients find it.
    """

    def __init__(self, url: str, port: int):
        target = urlsplit(url)
        self._target = (target.hostname, target.port)
        self._connections: list[socket.socket] = []
        self._door = socket.create_server(("127.0.0.1", port))
        self.port = self._door.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self) -> None:
        """Refuse who comes, and cut off who is there."""
        for each in (self._door, *self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # a socket that is only closed stays open for a thread that reads it
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._door.accept()
                server = socket.create_connection(self._target)
                self._connections += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def relaying(url: str, port: int) -> Iterator[Relay]:
    relay = Relay(url, port)
    try:
        yield relay
    finally:
        relay.shut()
