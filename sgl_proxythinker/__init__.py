"""ProxyThinker for a stock SGLang: a large vision-language model guided, at test time, by two small ones."""

from typing import TYPE_CHECKING, Any

from sgl_proxythinker.config import ProxyConfig, ProxyOptions

if TYPE_CHECKING:
    from sgl_proxythinker.offline import Engine

__all__ = ["Engine", "ProxyConfig", "ProxyOptions"]


def __getattr__(name: str) -> Any:
    # Importing the engine imports SGLang, which a server's plugin loading must not do early.
    if name == "Engine":
        from sgl_proxythinker.offline import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
