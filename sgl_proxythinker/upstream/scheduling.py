"""SGLang names of a scheduler's requests; importing them imports most of SGLang."""

from sglang.srt.constrained.base_grammar_backend import InvalidGrammarObject
from sglang.srt.managers.io_struct import AbortReq, TokenizedGenerateReqInput
from sglang.srt.managers.schedule_batch import FINISH_ABORT, FINISHED_MATCHED_REGEX
from sglang.srt.sampling.penaltylib import (
    BatchedFrequencyPenalizer,
    BatchedMinNewTokensPenalizer,
    BatchedPresencePenalizer,
    BatchedRepetitionPenalizer,
)
from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo
from sglang.srt.sampling.sampling_params import SamplingParams

__all__ = [
    "FINISHED_MATCHED_REGEX",
    "FINISH_ABORT",
    "AbortReq",
    "BatchedFrequencyPenalizer",
    "BatchedMinNewTokensPenalizer",
    "BatchedPresencePenalizer",
    "BatchedRepetitionPenalizer",
    "InvalidGrammarObject",
    "SamplingBatchInfo",
    "SamplingParams",
    "TokenizedGenerateReqInput",
]
