"""Which addresses a client may make the server connect to: those of the public internet, not those beside it."""

from __future__ import annotations

import ipaddress
import socket

_TRANSLATED = (  # IPv6 networks whose last 32 bits are an IPv4 address that a gateway connects to
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("::ffff:0:0:0/96"),
    ipaddress.ip_network("::/96"),
)
_LOCAL_TRANSLATION = ipaddress.ip_network("64:ff9b:1::/48")


def is_public(address: str) -> bool:
    """Whether an address may be connected to for anybody who asks.

    Not: this host's own, private, link-local, shared (CGNAT), reserved, multicast and unspecified ones, and IPv6
    addresses that stand for an IPv4 address that is none of the public.

    Args:
        address: as a resolver gives it; an IPv6 scope is allowed.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return _is_public(ip) and not _is_of_this_host(str(ip))


def _is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if not ip.is_global or ip.is_multicast or ip.is_reserved or ip.is_unspecified:
        return False
    if ip.version == 4:
        return True
    if ip.is_site_local or ip in _LOCAL_TRANSLATION:
        return False
    inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    inner += [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) for network in _TRANSLATED if ip in network]
    return all(_is_public(one) for one in inner if one is not None)


def _is_of_this_host(address: str) -> bool:
    """A socket can be bound to the addresses of its own host only."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
