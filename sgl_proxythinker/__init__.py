"""ProxyThinker for a stock SGLang: a large vision-language model guided, at test time, by two small ones."""

import importlib
from typing import TYPE_CHECKING, Any

from sgl_proxythinker.config import ProxyConfig, ProxyOptions
from sgl_proxythinker.limits import Limits

if TYPE_CHECKING:
    from sgl_proxythinker.backend import ProxyBackend
    from sgl_proxythinker.engine_backend import EngineBackend
    from sgl_proxythinker.language import proxy_gen
    from sgl_proxythinker.offline import Engine

__all__ = ["Engine", "EngineBackend", "Limits", "ProxyBackend", "ProxyConfig", "ProxyOptions", "proxy_gen"]

_HOMES = {"Engine": "offline", "EngineBackend": "engine_backend", "ProxyBackend": "backend", "proxy_gen": "language"}


def __getattr__(name: str) -> Any:
    # Importing these imports SGLang, which a server's plugin loading must not do early.
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
