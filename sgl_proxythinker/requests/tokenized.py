"""The main process' part: admit a request or say why not, and say in its answer how it was guided."""

from __future__ import annotations

from typing import Any, NamedTuple

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.requests.radix_key import is_kept_apart, keep_apart
from sgl_proxythinker.requests.trace_format import as_lists
from sgl_proxythinker.strength import ALPHA, TRACE, Strength, asks_for_trace, read_strength

# On the request object; SGLang copies it, attributes included, for every sample of `n` > 1.
_ATTRIBUTE = "proxy_admitted"


class Admitted(NamedTuple):
    """What a request asked of guidance, for its answer."""

    strength: Strength
    trace: bool


def admit_images(obj: Any) -> None:
    """Refuse images that only one model of three could give a meaning to.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    for image in _flat(getattr(obj, "image_data", None)):
        if isinstance(image, dict) and not _PREPARED.isdisjoint(image):
            raise RequestError(
                "precomputed and preprocessed images may fit one model's width only; send the image, each model "
                "embeds it itself."
            )


def admit_tokenized(obj: Any, tokenized: Any, config: ProxyConfig | None) -> None:
    """The last look at a request before it is sent: its tokens, its part of the radix tree, and its weights.

    Args:
        obj: SGLang's `GenerateReqInput` for one request that was admitted; it remembers what was asked for its
            responses.
        tokenized: what will be sent to the scheduler; its sampling parameters are completed.
        config: the server's proxies, or None for a server that serves the base alone.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    if not tokenized.input_ids:
        raise RequestError("the prompt has no token to go on from: send a text that the tokenizer makes a token of.")
    sampling_params = tokenized.sampling_params
    strength = read_strength(sampling_params.custom_params, 0.0 if config is None else config.alpha)
    trace = asks_for_trace(sampling_params.custom_params)
    if config is None:
        if trace:
            raise RequestError(
                f"this server runs the base model alone, so there is no expert whose influence {TRACE} could show. "
                "Start it with --proxy-expert-path and --proxy-amateur-path, or leave custom_params out."
            )
    else:
        if is_kept_apart(tokenized.extra_key):
            raise RequestError(
                f"extra_key is {tokenized.extra_key!r}: this ending is the server's own. Choose another."
            )
        if strength.is_base_alone and not trace:
            tokenized.extra_key = keep_apart(tokenized.extra_key)
        if not strength.is_base_alone:
            _refuse_input_logprobs(tokenized)
        sampling_params.custom_params = {**(sampling_params.custom_params or {}), **strength.as_params()}
    setattr(obj, _ATTRIBUTE, Admitted(strength, trace))


def annotate(obj: Any, output: dict[str, Any], is_incremental: bool) -> dict[str, Any]:
    """Say in an output's `meta_info` how it was guided; outputs of servers that aren't ours stay as they are.

    A trace is sent once: of a stream each chunk has its new tokens' where chunks have new tokens only, else the last
    chunk has all of it.

    Args:
        obj: SGLang's `GenerateReqInput` of one request.
        output: one of its outputs; of a stream, one chunk.
        is_incremental: the server has `--incremental-streaming-output`.

    Raises:
        RuntimeError: the request's trace is not that of its tokens.
    """
    admitted: Admitted | None = getattr(obj, _ATTRIBUTE, None)
    if admitted is None or "meta_info" not in output:
        return output
    meta = output["meta_info"]
    meta.update(admitted.strength.as_params())
    # SGLang gives it to every request that shared a step with one that asked.
    entries = meta.pop(TRACE, [])
    is_whole = is_incremental or not obj.stream or meta.get("finish_reason") is not None
    if admitted.trace and is_whole:
        meta[TRACE] = as_lists(entries)
        # Of an aborted request SGLang may send other tokens than it has computed.
        aborted = (meta.get("finish_reason") or {}).get("type") == "abort"
        if not aborted and meta[TRACE]["token_id"] != output["output_ids"]:
            raise RuntimeError(f"request {obj.rid}: its {TRACE} is not that of its tokens, so it is not sent")
    return output


def _refuse_input_logprobs(tokenized: Any) -> None:
    """SGLang computes prompt logprobs inside the base's forward, from the base's logits."""
    start = tokenized.logprob_start_len
    if tokenized.return_logprob and start not in (None, -1) and start < len(tokenized.input_ids):
        raise RequestError(
            "logprobs of prompt tokens would be the base model's, not those of the guided distribution. Ask for "
            f"output logprobs only (logprob_start_len -1, echo false), or send {ALPHA} 0 for the base's."
        )


# Keys of an image that was worked on before it came: SGLang takes such dicts in place of a picture.
_PREPARED = frozenset({"format", "feature", "precomputed_embeddings", "pixel_values"})


def _flat(data: Any) -> list[Any]:
    return [item for part in data for item in _flat(part)] if isinstance(data, (list, tuple)) else [data]
