"""The question every hook asks first: is this server ours? And what it was configured to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgl_proxythinker.config import ProxyConfig
    from sgl_proxythinker.limits import Limits
    from sgl_proxythinker.placement import Placement

NAME = "proxythinker"

# On the ServerArgs object: names with an underscore survive its read-only rule, pickling and deepcopy.
_ATTRIBUTE = "_proxythinker"


def mark_as_ours(server_args: Any, config: ProxyConfig | None, placement: Placement | None, limits: Limits) -> None:
    """Let `config` (None: plain SGLang, base alone) travel with the server's arguments into every process."""
    setattr(server_args, _ATTRIBUTE, {"config": config, "placement": placement, "limits": limits})


def is_ours(server_args: Any) -> bool:
    """Whether this server was started with `--plugin proxythinker`, guided or plain."""
    return hasattr(server_args, _ATTRIBUTE)


def proxy_config(server_args: Any) -> ProxyConfig | None:
    """The proxies of a server that is ours; None when it serves the base alone."""
    return getattr(server_args, _ATTRIBUTE)["config"]


def proxy_placement(server_args: Any) -> Placement | None:
    """Which ranks run which model; None on a server that serves the base alone."""
    return getattr(server_args, _ATTRIBUTE)["placement"]


def request_limits(server_args: Any) -> Limits:
    """What a server that is ours, guided or plain, takes from one request."""
    return getattr(server_args, _ATTRIBUTE)["limits"]
