"""SGLang on a machine without a GPU: to try it and to test it, not for speed.

SGLang's own CPU path is selected with an environment variable and needs AMX kernels that the CUDA build of
`sglang-kernel` does not contain; importing that build fails without a CUDA driver. Here the package's loader is
replaced by one that loads nothing, the one operator that every request needs is written in torch, and operators that
model files merely name at import become stand-ins that raise when called.

It must run in every process before `sglang.srt.managers` or `sglang.srt.entrypoints` is imported.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Mapping
from typing import Any

import torch

from sgl_proxythinker.errors import LaunchError

# Read at import by models that are not ours (Qwen3.5, gated delta nets); never called by Qwen2.5-VL.
_NAMED_AT_IMPORT = (
    "fused_sigmoid_mul_cpu",
    "fused_qk_gemma_rmsnorm_cpu",
    "fused_qk_gemma_rmsnorm_with_gate_cpu",
    "fused_qkvzba_split_reshape_cat_contiguous_cpu",
    "fused_gdn_gating_cpu",
)

# Set unless the user has; children inherit them.
ENVIRONMENT = {
    "SGLANG_USE_CPU_ENGINE": "1",
    # Compiling the few torch.compile'd helpers makes the first request wait about 30 s for nothing.
    "TORCHDYNAMO_DISABLE": "1",
    # Found, NCCL is asked for a CUDA device; missing, SGLang falls back to gloo.
    "SGLANG_NCCL_SO_PATH": "/nonexistent",
}

# What SGLang would choose needs kernels that are not there: AMX attention, the xgrammar mask kernel. The default
# number of KV tokens would be most of the machine's memory.
SERVER_DEFAULTS = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "grammar_backend": "llguidance",
    "max_total_tokens": 16_384,
    # An idle scheduler polls without pause; on a GPU host that is one core of many.
    "sleep_on_idle": True,
}


def is_needed(device: str | None) -> bool:
    """Whether a server with `--device` DEVICE (None: not given) has to run on the CPU."""
    return device == "cpu" or (device is None and not torch.cuda.is_available())


def check(given: Mapping[str, Any]) -> None:
    """Refuse what ends a server on a CPU: at its start without a sentence, or with the first request that needs it.

    Args:
        given: SGLang's arguments by field name, as the user gave them.

    Raises:
        LaunchError: one of them needs a kernel of a GPU.
    """
    if given.get("grammar_backend") == "xgrammar":
        raise LaunchError(
            "--grammar-backend xgrammar masks logits by a kernel of a GPU: the first request with a grammar would end "
            "the server. Leave it out: on a CPU it is llguidance."
        )
    if (given.get("page_size") or 1) > 1 and os.environ.get("TRITON_INTERPRET") != "1":
        raise LaunchError(
            f"--page-size {given['page_size']}: SGLang allocates pages by kernels of a GPU. Leave it out, or set "
            "TRITON_INTERPRET=1, with which they are interpreted, slowly."
        )


def is_installed() -> bool:
    return "sgl_proxythinker_cpu_ops" in sys.modules


def install(tp_size: int = 1, nodes: int = 1) -> None:
    """Prepare this process, and through the environment its children, to run SGLang on the CPU. Idempotent.

    Args:
        tp_size: the number of ranks.
        nodes: of hosts that share them.
    """
    ranks_here = max(1, tp_size // nodes)
    cores = len(os.sched_getaffinity(0))
    # One core stays free for the HTTP server, the tokenizer and the client: parallel regions of a model wait for
    # their slowest thread, and on two busy cores that wait is most of a decode step.
    for name, value in (ENVIRONMENT | {"OMP_NUM_THREADS": str(max(1, (cores - 1) // ranks_here))}).items():
        os.environ.setdefault(name, value)
    if tp_size > 1:
        os.environ.setdefault("SGLANG_CPU_OMP_THREADS_BIND", _cores_per_rank(ranks_here, nodes))
    if is_installed():
        return
    sys.modules["sgl_proxythinker_cpu_ops"] = types.ModuleType("sgl_proxythinker_cpu_ops")
    _forget_cached_platform()
    if not torch.cuda.is_available():
        loader: Any = types.ModuleType("sgl_kernel.load_utils")
        loader._load_architecture_specific_ops = lambda: None
        loader._preload_cuda_library = lambda: None
        sys.modules["sgl_kernel.load_utils"] = loader
    _register_operators()


def _cores_per_rank(ranks_here: int, nodes: int) -> str:
    """SGLang's format, one entry a rank: `0-3|4-7`. It has those of all nodes, which are taken to be alike."""
    cores = sorted(os.sched_getaffinity(0))
    ranks = [
        cores[rank * len(cores) // ranks_here : (rank + 1) * len(cores) // ranks_here] for rank in range(ranks_here)
    ]
    return "|".join(",".join(map(str, own or cores)) for own in ranks * nodes)


def _forget_cached_platform() -> None:
    """SGLang remembers its first answer to "is this a CPU engine?", asked before a plugin is loaded."""
    utils = sys.modules.get("sglang.srt.utils.common")
    if utils is not None:
        utils.is_cpu.cache_clear()


def _register_operators() -> None:
    library = torch.library.Library("sgl_kernel", "FRAGMENT")
    library.define(
        "assign_req_to_token_pool_cpu(Tensor req_pool_indices, Tensor(a!) req_to_token, Tensor start, Tensor end, "
        "Tensor out_cache_loc, int width) -> ()"
    )
    library.impl("assign_req_to_token_pool_cpu", _assign_req_to_token_pool, "CPU")
    # A library's registrations end with it.
    own: Any = sys.modules["sgl_proxythinker_cpu_ops"]
    own.library = library
    # Pools of a server that speculates warm it up. Chains move no KV.
    torch.ops.sgl_kernel.copy_all_layer_kv_cache_cpu = lambda *_, **__: None
    for name in _NAMED_AT_IMPORT:
        setattr(torch.ops.sgl_kernel, name, _raising(name))


def _assign_req_to_token_pool(
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    start: torch.Tensor,
    end: torch.Tensor,
    out_cache_loc: torch.Tensor,
    width: int,
) -> None:
    """Write each request's new KV slots into its row of the request-to-token table, as the CUDA kernel does."""
    at = 0
    for row, first, last in zip(req_pool_indices.tolist(), start.tolist(), end.tolist(), strict=True):
        req_to_token[row, first:last] = out_cache_loc[at : at + last - first].to(req_to_token.dtype)
        at += last - first


def _raising(name: str) -> Any:
    def stand_in(*_: Any, **__: Any) -> None:
        raise NotImplementedError(f"sgl_kernel::{name} is not available on a CPU without SGLang's CPU kernels")

    return stand_in
