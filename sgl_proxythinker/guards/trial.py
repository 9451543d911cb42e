"""Try a request alone in the scheduler, before it is in a batch with others: what fails here fails for it only.

The main process refuses what it knows to be wrong. This is for what it doesn't know: a value that Python, torch or
Rust would stumble over in the middle of a batch, where the error belongs to nobody and ends the process.
"""

from __future__ import annotations

import copy
import math
from array import array
from functools import cache
from typing import Any, NamedTuple

import msgspec
import numpy as np

from sgl_proxythinker.upstream.scheduling import SamplingBatchInfo, SamplingParams, TokenizedGenerateReqInput

# Of `TokenizedGenerateReqInput`: what the scheduler computes with. The rest is SGLang's own or opaque to it.
_FIELDS = (
    "rid", "return_logprob", "logprob_start_len", "top_logprobs_num", "token_ids_logprob", "stream", "priority",
    "extra_key", "routing_key", "require_reasoning",
)  # fmt: skip
# Its values are the request's own: custom logit processors of a plain server take any.
_UNTYPED = {"custom_params"}


# Of a row of logits. Once ids are known to be below the vocabulary's, upstream's preparation doesn't depend on it: and
# tensors as wide as a vocabulary are filled by all of torch's threads, which may wait for each other for 10 ms.
_WIDTH = 8


class _Batch:
    """What upstream reads of a `ScheduleBatch` to prepare its sampling. On the CPU, where a bad index is an error."""

    device = "cpu"

    def __init__(self, row: _Row):
        self.reqs = [row]


class _Row:
    """What upstream reads of a `Req` to prepare its sampling."""

    output_ids = ()

    def __init__(self, request: Any, tokenizer: Any):
        self.sampling_params = _without_ids(request.sampling_params)
        self.custom_logit_processor = request.custom_logit_processor
        self.return_sampling_mask = request.return_sampling_mask
        self.tokenizer = None if tokenizer is None else _Stops()


class _Stops(NamedTuple):
    """What upstream reads of a tokenizer to prepare a minimum length."""

    additional_stop_token_ids: None = None
    eos_token_id: int = 0


def try_alone(request: Any, tokenizer: Any, vocab_size: int) -> None:
    """Raise what this request would raise in a batch: a pure function of the request, so of every rank alike.

    Args:
        request: a `TokenizedGenerateReqInput`.
        tokenizer: the scheduler's.
        vocab_size: the width of the base's head.
    """
    for owner, names in ((request, _FIELDS), (request.sampling_params, _types(SamplingParams))):
        kind: type = type(owner)
        types = _types(kind)
        for name in names:
            if name not in _UNTYPED:
                _check_type(name, getattr(owner, name), types[name])
    _check_ids(request, vocab_size)
    _check_bias(request.sampling_params.logit_bias or {}, vocab_size)
    batch = _Batch(_Row(request, tokenizer))  # the penalizers hold it weakly
    sampling = SamplingBatchInfo.from_schedule_batch(batch, _WIDTH)
    for name in ("temperatures", "top_ps", "min_ps"):
        if not math.isfinite(getattr(sampling, name).item()):
            raise ValueError(f"{name.removesuffix('s')} is infinite or no number in float32")
    if sampling.temperatures.item() <= 0 or sampling.top_ks.item() < 1:
        raise ValueError("temperature and top_k must be above 0 here")


@cache
def _types(struct: type) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(struct)}


def _check_type(name: str, value: Any, declared: Any) -> None:
    try:
        msgspec.convert(value, declared)
    except msgspec.ValidationError as error:
        raise TypeError(f"{name}: {error}") from None


def _check_ids(request: Any, vocab_size: int) -> None:
    ids = request.input_ids
    if request.input_embeds is None and not len(ids):
        raise ValueError("the prompt has no token")
    # Places of pictures are expanded later, to ids of no token.
    if isinstance(ids, array) and request.mm_inputs is None and request.input_embeds is None:
        view = np.frombuffer(ids, dtype=np.int64)
        if view.min() < 0 or view.max() >= vocab_size:
            raise ValueError(f"input_ids has an id outside of 0 to {vocab_size - 1}")
    # Stop ids are looked up in a row of logits when another request of the batch has a minimum length, too.
    for name, named in (
        ("token_ids_logprob", request.token_ids_logprob),
        ("stop_token_ids", request.sampling_params.stop_token_ids),
    ):
        if any(not 0 <= token < vocab_size for token in named or ()):
            raise ValueError(f"{name} has an id outside of 0 to {vocab_size - 1}")
    if not -1 <= request.logprob_start_len:
        raise ValueError("logprob_start_len is below -1")
    if not 0 <= request.top_logprobs_num <= vocab_size:
        raise ValueError(f"top_logprobs_num is outside of 0 to {vocab_size}")


def _check_bias(bias: dict[str, float], vocab_size: int) -> None:
    """Upstream writes each value to its id's place in a row of float32."""
    if any(not 0 <= int(token) < vocab_size for token in bias):
        raise ValueError(f"logit_bias has an id outside of 0 to {vocab_size - 1}")
    if not np.isfinite(np.array(list(bias.values()), dtype=np.float64).astype(np.float32)).all():
        raise ValueError("logit_bias is infinite or no number in float32")


def _without_ids(params: SamplingParams) -> SamplingParams:
    """The same parameters for a row of `_WIDTH` tokens."""
    narrow = copy.copy(params)
    narrow.logit_bias = narrow.stop_token_ids = None
    return narrow


assert all(name in _types(TokenizedGenerateReqInput) for name in _FIELDS)
