"""The main process' part: admit a request or say why not, and say in its answer how it was guided."""

from __future__ import annotations

from typing import Any

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guidance import ALPHA, CARRIED, TRACE, Guidance
from sgl_proxythinker.requests.trace_format import as_lists

# On the request object, for its answer; SGLang copies it, attributes included, for every sample of `n` > 1.
_ATTRIBUTE = "proxy_guidance"


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
    """The last look at a request before it is sent: its tokens, its guidance, and its part of the radix tree.

    Args:
        obj: SGLang's `GenerateReqInput` for one request; it remembers its guidance for its responses.
        tokenized: what will be sent to the scheduler. Its `custom_params` are those that admission made, or None in a
            request of SGLang's own for its health, which gets the server's default.
        config: the server's proxies, or None for a server that serves the base alone.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    if not tokenized.input_ids:
        raise RequestError("the prompt has no token to go on from: send a text that the tokenizer makes a token of.")
    sampling_params = tokenized.sampling_params
    default = Guidance() if config is None else config.guidance
    guidance = default if sampling_params.custom_params is None else sampling_params.custom_params[CARRIED]
    if config is not None:
        tokenized.extra_key = guidance.tree_key(tokenized.extra_key, config.always_read)
        if not guidance.is_base_alone:
            _refuse_input_logprobs(tokenized)
    sampling_params.custom_params = {CARRIED: guidance}
    setattr(obj, _ATTRIBUTE, guidance)


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
    guidance: Guidance | None = getattr(obj, _ATTRIBUTE, None)
    if guidance is None or "meta_info" not in output:
        return output
    meta = output["meta_info"]
    meta.update(guidance.as_params())
    # SGLang gives it to every request that shared a step with one that asked.
    entries = meta.pop(TRACE, [])
    is_whole = is_incremental or not obj.stream or meta.get("finish_reason") is not None
    if guidance.trace and is_whole:
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
