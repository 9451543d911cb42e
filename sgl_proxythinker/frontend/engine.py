"""The in-process engine: SGLang's own, with three models."""

from __future__ import annotations

from typing import Any

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import LaunchError, RequestError
from sgl_proxythinker.launch import cpu
from sgl_proxythinker.launch.server_args import finish_server_args
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.pictures.request import serve_this_process
from sgl_proxythinker.plugin import provide_hooks
from sgl_proxythinker.server import proxy_config

# The class below derives from SGLang's, whose import has to find the CPU support in place.
if cpu.is_needed(None):
    cpu.install()

from sglang.srt.entrypoints.engine import Engine as SGLangEngine  # noqa: E402
from sglang.srt.server_args import ServerArgs  # noqa: E402

_WEIGHTS = "the three models' weights belong together; start a new engine with the checkpoints you want"
_ADAPTERS = "an adapter would change one model of three; merge it into a checkpoint"
_SESSIONS = "send the whole conversation; its prefix is cached"
_SCORES = "scores and embeddings would be the base's alone; use an engine without small models"
_MEMORY = "only the base's memory would be released; shut the engine down"
_EXPERTS = "expert routing is one model's; use an engine without small models"

# What SGLang's engine can do and a guided one can't: it would answer for, or change, the base alone.
REFUSED = {
    "async_encode": _SCORES,
    "async_load_lora_adapter": _ADAPTERS,
    "async_score": _SCORES,
    "async_unload_lora_adapter": _ADAPTERS,
    "close_session": _SESSIONS,
    "collective_rpc": _WEIGHTS,
    "destroy_weights_update_group": _WEIGHTS,
    "dump_expert_distribution_record": _EXPERTS,
    "encode": _SCORES,
    "get_weights_by_name": _WEIGHTS,
    "init_weights_update_group": _WEIGHTS,
    "load_lora_adapter": _ADAPTERS,
    "load_lora_adapter_from_tensors": _ADAPTERS,
    "open_session": _SESSIONS,
    "release_memory_occupation": _MEMORY,
    "rerank": _SCORES,
    "resume_memory_occupation": _MEMORY,
    "save_remote_model": _WEIGHTS,
    "save_sharded_model": _WEIGHTS,
    "score": _SCORES,
    "start_expert_distribution_record": _EXPERTS,
    "stop_expert_distribution_record": _EXPERTS,
    "unload_lora_adapter": _ADAPTERS,
    "update_weights_from_disk": _WEIGHTS,
    "update_weights_from_distributed": _WEIGHTS,
    "update_weights_from_ipc": _WEIGHTS,
    "update_weights_from_tensor": _WEIGHTS,
}


class Engine(SGLangEngine):
    """SGLang's offline engine, guided.

    Args:
        model_path: the base model.
        proxy: the expert and the amateur; None serves the base alone.
        limits: what one request may ask for.
        sglang_arguments: any other field of SGLang's `ServerArgs`.

    `generate` and `async_generate` are SGLang's own; a request's strength goes into
    `sampling_params={"custom_params": {"proxy_alpha": 0.8}}`, and `meta_info` of the answer carries it.

    Raises:
        LaunchError: this can't be served; the message says what to change.
        RequestError: from a method in `REFUSED`, on an engine with proxies.
    """

    def __init__(
        self, model_path: str, proxy: ProxyConfig | None = None, limits: Limits | None = None, **sglang_arguments: Any
    ):
        if sglang_arguments.get("device") == "cpu" and not cpu.is_installed():
            raise LaunchError(
                "device='cpu' on a machine with a GPU has to be chosen before SGLang is imported: set "
                "CUDA_VISIBLE_DEVICES='' in the environment, or serve with `--device cpu` on the command line."
            )
        given = {"log_level": "error", **sglang_arguments, "model_path": model_path}
        if proxy is not None and given.get("nnodes", 1) != 1:
            raise LaunchError(
                f"nnodes={given['nnodes']}: the engine runs on one host. Start a server, with --nnodes on each host."
            )
        limits = Limits() if limits is None else limits
        provide_hooks()
        super().__init__(server_args=finish_server_args(proxy, limits, given, lambda: ServerArgs(**given)))
        serve_this_process(self.tokenizer_manager)

    def __getattribute__(self, name: str) -> Any:
        if name in REFUSED and proxy_config(self.server_args) is not None:
            raise RequestError(f"Engine.{name} is not available with guidance: {REFUSED[name]}.")
        return super().__getattribute__(name)
