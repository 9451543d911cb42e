"""SGLang names that are safe to import in the main process while the command line is read."""

from sglang.srt import server_args
from sglang.srt.environ import envs
from sglang.srt.server_args_config_parser import ConfigArgumentMerger
from sglang.srt.utils.common import get_device_memory_capacity
from sglang.srt.utils.hf_transformers.common import get_context_length

__all__ = ["ConfigArgumentMerger", "envs", "get_context_length", "get_device_memory_capacity", "server_args"]
