"""ProxyThinker for a stock SGLang: a large vision-language model guided, at test time, by two small ones."""

import importlib
from typing import TYPE_CHECKING, Any

from sgl_proxythinker.config import ProxyConfig, ProxyOptions
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.version import __version__

if TYPE_CHECKING:
    from sgl_proxythinker.frontend.backend import ProxyBackend
    from sgl_proxythinker.frontend.engine import Engine
    from sgl_proxythinker.frontend.engine_backend import EngineBackend
    from sgl_proxythinker.frontend.proxy_gen import proxy_gen

__all__ = [
    "Engine",
    "EngineBackend",
    "Limits",
    "ProxyBackend",
    "ProxyConfig",
    "ProxyOptions",
    "__version__",
    "proxy_gen",
]

_HOMES = {
    "Engine": "frontend.engine",
    "EngineBackend": "frontend.engine_backend",
    "ProxyBackend": "frontend.backend",
    "proxy_gen": "frontend.proxy_gen",
}


def __getattr__(name: str) -> Any:
    # Importing these imports SGLang, which a server's plugin loading must not do early.
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
