"""SGLang names of speculative decoding."""

from sglang.srt.constrained.base_grammar_backend import GrammarMask
from sglang.srt.managers.overlap_utils import FutureMap
from sglang.srt.managers.utils import GenerationBatchResult
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from sglang.srt.speculative.base_spec_worker import BaseSpecWorker
from sglang.srt.speculative.dflash_info import DFlashVerifyInput
from sglang.srt.speculative.spec_info import SpecInput, SpecInputType, SpeculativeAlgorithm
from sglang.srt.speculative.spec_registry import CustomSpecAlgo, get_spec

__all__ = [
    "BaseSpecWorker",
    "CustomSpecAlgo",
    "DFlashVerifyInput",
    "ForwardMode",
    "FutureMap",
    "GenerationBatchResult",
    "GrammarMask",
    "SpecInput",
    "SpecInputType",
    "SpeculativeAlgorithm",
    "get_spec",
]
