"""The in-process engine: SGLang's own, with three models."""

from __future__ import annotations

from typing import Any

from sgl_proxythinker import cpu
from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.launch import finish_server_args

# The class below derives from SGLang's, whose import has to find the CPU support in place.
if cpu.is_needed(None):
    cpu.install()

from sglang.srt.entrypoints.engine import Engine as SGLangEngine  # noqa: E402
from sglang.srt.server_args import ServerArgs  # noqa: E402


class Engine(SGLangEngine):
    """SGLang's offline engine, guided.

    Args:
        model_path: the base model.
        proxy: the expert and the amateur; None serves the base alone.
        sglang_arguments: any other field of SGLang's `ServerArgs`.

    `generate` and `async_generate` are SGLang's own; a request's strength goes into
    `sampling_params={"custom_params": {"proxy_alpha": 0.8}}`, and `meta_info` of the answer carries it.

    Raises:
        LaunchError: this can't be served; the message says what to change.
    """

    def __init__(self, model_path: str, proxy: ProxyConfig | None = None, **sglang_arguments: Any):
        given = {"log_level": "error", **sglang_arguments, "model_path": model_path}
        super().__init__(server_args=finish_server_args(proxy, given, lambda: ServerArgs(**given)))
