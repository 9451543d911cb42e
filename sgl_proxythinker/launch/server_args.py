"""From flags to a server that is either guided by three models or does not start."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sgl_proxythinker.config import ProxyConfig, build_config
from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.launch import cpu
from sgl_proxythinker.launch.hooks import Stage, check_upstream, install
from sgl_proxythinker.launch.malloc import keep_large_buffers
from sgl_proxythinker.launch.port import check_port
from sgl_proxythinker.limits import Limits, build_limits
from sgl_proxythinker.nodes.flags import check_nodes
from sgl_proxythinker.pictures.part import check_process_config
from sgl_proxythinker.placement import place
from sgl_proxythinker.policy.environment import check_environment
from sgl_proxythinker.policy.server_arguments import check_arguments
from sgl_proxythinker.policy.speculation import settle_speculation
from sgl_proxythinker.server import mark_as_ours, proxy_config

if TYPE_CHECKING:
    from sgl_proxythinker.launch.checkpoints import Models

logger = logging.getLogger(__name__)

# Chains of the largest CUDA graph of a verify, which writes a row of logits for each token: 0.3 GB for base and amateur
# each, with three drafts. SGLang's own default is at least twice as many on GPUs of 60 GB and more.
_MOST_CHAINS, _LARGE_GPU = 128, 60_000_000_000
# Before a server with a failed process ends, SGLang writes out where its other processes stand. Its event loop waits
# for that up to a minute and more, and every client with it; so it is done only where somebody asks for it.
_SLOW_DUMPS = ("SGLANG_PYSPY_DUMP_BEFORE_CRASH", "SGLANG_CUDA_COREDUMP_BEFORE_CRASH")


def build_server_args(flags: dict[str, Any], given: dict[str, Any], resolve: Callable[[], Any]) -> Any:
    """Check what was asked for, then let SGLang resolve its own arguments and mark them as ours.

    Args:
        flags: our own flags, by field name of `ProxyConfig` and `Limits`, and `config`.
        given: SGLang's arguments by field name, as the user gave them; defaults that fit the machine are filled in.
        resolve: builds `ServerArgs` from `given`.

    Raises:
        LaunchError: this can't be served; the message says what to change.
    """
    check_port(given)
    file = flags.pop("config")
    limits = build_limits({name: flags.pop(name) for name in Limits.model_fields}, file)
    return finish_server_args(build_config(flags, file), limits, given, resolve)


def finish_server_args(
    config: ProxyConfig | None, limits: Limits, given: dict[str, Any], resolve: Callable[[], Any]
) -> Any:
    """`build_server_args` after the flags: what the command line and the offline `Engine` share."""
    check_upstream()
    nodes = check_nodes(given)
    for name in _SLOW_DUMPS:
        os.environ.setdefault(name, "0")
    if cpu.is_needed(given.get("device")):
        cpu.check(given)
        cpu.install(given.get("tp_size") or 1, nodes)
        for name, value in cpu.SERVER_DEFAULTS.items():
            if not given.get(name):
                given[name] = value
    placement = None
    if config is None:
        server_args = resolve()
        logger.info("proxythinker: no small models given, serving plain SGLang: the base model alone")
    else:
        from sgl_proxythinker.launch.checkpoints import check_models
        from sgl_proxythinker.launch.memory_plan import settle_drafts
        from sgl_proxythinker.launch.quantization import check_keys

        check_environment(os.environ)
        check_arguments(given, default_arguments())
        models = check_models(config, given)
        memory = gpu_bytes(given)
        ranks, drafts = given.get("tp_size", 1), config.always_drafts
        placement = place(ranks, models.shapes, config.placement, config.tp_size, memory, nodes, drafts)
        config = config.model_copy(update={"placement": placement.name, "tp_size": placement.proxy_tp_size})
        given |= settled_arguments(config, given, models, memory)
        server_args = resolve()
        check_keys(server_args, models.dtypes)
        config, why_not = settle_speculation(config, given, server_args.attention_backend, server_args.device == "cpu")
        if why_not is None:
            config, why_not = settle_drafts(config, models, placement, server_args, memory)
        if config.drafts:
            _speculate(server_args, config)
        logger.info("proxythinker: %s is guided by %s", given["model_path"], config.in_words())
        if why_not:
            logger.info("proxythinker: without drafts, because %s; --proxy-speculate off says so itself", why_not)
        logger.info("proxythinker: placement %s", placement)
    check_process_config(server_args.mm_process_config)
    check_preferred(server_args.preferred_sampling_params)
    mark_as_ours(server_args, config, placement, limits)
    install(Stage.MAIN_PROCESS)  # SGLang's heavy imports happen here, after the CPU support is in place
    return server_args


def check_preferred(params: Mapping[str, Any] | None) -> None:
    """Refuse a strength among `--preferred-sampling-params`, which requests have a place of their own for.

    Raises:
        LaunchError: says which flags there are.
    """
    if params and params.get("custom_params") is not None:
        raise LaunchError(
            "--preferred-sampling-params has custom_params, which no request would get: what a request has that says "
            "nothing of guidance is said by --proxy-alpha, --proxy-law, --proxy-clip and --proxy-plausible."
        )


def settled_arguments(
    config: ProxyConfig, given: Mapping[str, Any], models: Models, memory_bytes: int | None
) -> dict[str, Any]:
    """Arguments of SGLang that follow from guidance, whatever its defaults are.

    Args:
        given: what the user gave, by field name.
        memory_bytes: of one GPU; None: not known.
    """
    settled = {
        "context_length": models.context_length,
        "mm_feature_transport": "cpu",  # the only one that is let through, and not SGLang's default
        "cuda_graph_backend_prefill": "disabled",  # as above; of text models SGLang's default is another
        # For mixtures of experts over several Hopper or Blackwell GPUs, SGLang 0.5.17 sums over ranks and normalises in
        # one kernel, and then leaves out what the first blocks of the vision tower add to the first layers of the
        # decoder (`post_residual_addition` in `LayerCommunicator.prepare_attn`).
        "enforce_disable_flashinfer_allreduce_fusion": True,
    }
    # Where steps may go without drafts, all sizes are captured for them, and so for chains.
    if config.always_drafts and _captures_too_many(given, memory_bytes):
        settled["cuda_graph_max_bs_decode"] = _MOST_CHAINS
    return settled


def _speculate(server_args: Any, config: ProxyConfig) -> None:
    from sgl_proxythinker.speculation.algorithm import arguments_for, most_running, register

    register()
    arguments = arguments_for(config.drafts)
    if config.always_drafts and (most := most_running(server_args)) is not None:
        arguments["max_running_requests"] = most
        logger.info(
            "proxythinker: %d requests run at once, for whose chains of %d drafts memory is planned, and more wait; "
            "--max-running-requests says otherwise",
            most,
            config.drafts,
        )
    server_args.override("proxythinker.speculate", **arguments)


def prepare_main_process(manager: Any) -> None:
    """Before the HTTP server listens: check and count what comes in, close routes that one fused token can't serve."""
    if manager.server_args.enable_metrics:
        from sgl_proxythinker.metrics.requests import count_requests

        config = proxy_config(manager.server_args)
        count_requests(manager, () if config is None else config.pairs)
    server = sys.modules.get("sglang.srt.entrypoints.http_server")
    if server is not None:  # the offline Engine has no HTTP server
        from sgl_proxythinker.http.application import guard_application

        install(Stage.HTTP)
        guard_application(server, manager)
        keep_large_buffers()


def _captures_too_many(given: Mapping[str, Any], memory_bytes: int | None) -> bool:
    """Whether SGLang would choose the sizes of CUDA graphs, and choose them for one token a request."""
    is_chosen = not given.get("cuda_graph_max_bs_decode") and not given.get("cuda_graph_bs_decode")
    return is_chosen and memory_bytes is not None and memory_bytes >= _LARGE_GPU


def gpu_bytes(given: Mapping[str, Any]) -> int | None:
    """The memory of one GPU; None on a CPU, or where it can't be told."""
    from sgl_proxythinker.upstream.launch import get_device_memory_capacity

    if cpu.is_needed(given.get("device")):
        return None
    mebibytes = get_device_memory_capacity(given.get("device"))
    return None if mebibytes is None else int(mebibytes) << 20


def default_arguments() -> dict[str, Any]:
    """SGLang's arguments where nothing is given, by field name."""
    from sglang.srt.server_args import ServerArgs

    return {
        field.name: field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        for field in dataclasses.fields(ServerArgs)
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    }
