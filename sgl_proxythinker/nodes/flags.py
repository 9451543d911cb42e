"""`--nnodes`, `--node-rank` and `--dist-init-addr`: what can't be a server, before any node waits for another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sgl_proxythinker.errors import LaunchError


class Address(NamedTuple):
    """Where node 0 listens for the others."""

    host: str
    port: int


def check_nodes(given: Mapping[str, Any]) -> int:
    """The number of nodes.

    Args:
        given: SGLang's arguments by field name, as the user gave them.

    Raises:
        LaunchError: the three flags don't name one node of a server; says what to give.
    """
    nodes, node = given.get("nnodes"), given.get("node_rank") or 0
    nodes = 1 if nodes is None else nodes
    if nodes < 1:
        raise LaunchError(f"--nnodes is {nodes}: it is the number of hosts, from 1 on.")
    if not 0 <= node < nodes:
        raise LaunchError(
            f"--node-rank {node} with --nnodes {nodes}: nodes are numbered from 0 to --nnodes - 1, and each is started "
            "by one command with the same --nnodes."
        )
    if nodes > 1:
        if not given.get("dist_init_addr"):
            raise LaunchError(
                f"--nnodes {nodes} without --dist-init-addr: the nodes would not find each other. Give all of them the "
                "same --dist-init-addr HOST:PORT, an address of node 0 that the others reach and a free port there."
            )
        read_address(given["dist_init_addr"])
    return nodes


def read_address(text: str) -> Address:
    """Read HOST:PORT, an IPv6 host in brackets.

    Raises:
        LaunchError: it is none.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
        if parts.username or parts.path or parts.query or parts.fragment:
            host = None
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise LaunchError(f"--dist-init-addr {text!r} is not HOST:PORT, such as 10.0.0.1:29500 or [fd00::1]:29500.")
    return Address(host, port)
