"""SGLang names that a scheduler process uses; importing them imports most of SGLang."""

from sglang.srt.environ import envs
from sglang.srt.managers import mm_utils
from sglang.srt.managers.tp_worker import TpModelWorker
from sglang.srt.mem_cache.kv_cache_configurator import KVCacheConfigurator
from sglang.srt.mem_cache.multimodal_cache import MultiModalStaticCache
from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode, ForwardBatch
from sglang.srt.model_executor.model_runner import ModelRunner
from sglang.srt.model_executor.pool_configurator import create_memory_pool_configurator
from sglang.srt.runtime_context import get_context
from sglang.srt.speculative.draft_worker_common import draft_server_args_copy

__all__ = [
    "CaptureHiddenMode",
    "ForwardBatch",
    "KVCacheConfigurator",
    "ModelRunner",
    "MultiModalStaticCache",
    "TpModelWorker",
    "create_memory_pool_configurator",
    "draft_server_args_copy",
    "envs",
    "get_context",
    "mm_utils",
]
