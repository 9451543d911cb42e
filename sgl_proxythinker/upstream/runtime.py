"""SGLang names that a scheduler process uses; importing them imports most of SGLang."""

from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.distributed import bootstrap, parallel_state
from sglang.srt.distributed.parallel_state import (
    get_tp_group,
    get_world_group,
    init_model_parallel_group,
    patch_tensor_parallel_group,
)
from sglang.srt.environ import envs
from sglang.srt.layers.logits_processor import LogitsProcessorOutput
from sglang.srt.managers import mm_utils
from sglang.srt.managers.tp_worker import TpModelWorker
from sglang.srt.mem_cache.kv_cache_configurator import KVCacheConfigurator
from sglang.srt.mem_cache.multimodal_cache import MultiModalStaticCache
from sglang.srt.model_executor import input_buffers
from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode, ForwardBatch
from sglang.srt.model_executor.graph_shared_output import GraphSharedOutput
from sglang.srt.model_executor.model_runner import ModelRunner, ModelRunnerOutput
from sglang.srt.model_executor.pool_configurator import create_memory_pool_configurator
from sglang.srt.model_executor.runner import base_runner
from sglang.srt.model_executor.runner.decode_cuda_graph_runner import DecodeCudaGraphRunner
from sglang.srt.runtime_context import get_context, get_resources
from sglang.srt.speculative.draft_worker_common import draft_server_args_copy
from sglang.srt.utils.common import get_available_gpu_memory

__all__ = [
    "CaptureHiddenMode",
    "DecodeCudaGraphRunner",
    "ForwardBatch",
    "GraphSharedOutput",
    "KVCacheConfigurator",
    "LogitsProcessorOutput",
    "ModelConfig",
    "ModelRunner",
    "ModelRunnerOutput",
    "MultiModalStaticCache",
    "TpModelWorker",
    "base_runner",
    "bootstrap",
    "create_memory_pool_configurator",
    "draft_server_args_copy",
    "envs",
    "get_available_gpu_memory",
    "get_context",
    "get_resources",
    "get_tp_group",
    "get_world_group",
    "init_model_parallel_group",
    "input_buffers",
    "mm_utils",
    "parallel_state",
    "patch_tensor_parallel_group",
]
