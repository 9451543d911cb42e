"""Whether the HTTP server could listen, before weights are read.

SGLang binds last. On a port in use its warm-up asks whoever listens there, gets an answer, and the log says `The server
is fired up` though this one has ended.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from typing import Any

from sgl_proxythinker.errors import LaunchError


def check_port(given: Mapping[str, Any]) -> None:
    """Refuse a `--port` on which another program listens at `--host`. Other faults of the two are left to the bind.

    Args:
        given: SGLang's arguments by field name, with its defaults.

    Raises:
        LaunchError: the port is in use.
    """
    host, port = given.get("host"), given.get("port")
    if host is None or port is None:
        return
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise LaunchError(
                f"--port {port} is in use: another program listens at {host}, maybe a server that was started before. "
                "End it, or give another --port."
            ) from None
