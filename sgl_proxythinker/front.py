"""The main process' part: admit a request or say why not, and say in its answer how it was guided."""

from __future__ import annotations

from typing import Any

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.strength import ALPHA, Strength, read_strength

# On the request object; SGLang copies it, attributes included, for every sample of `n` > 1.
_ATTRIBUTE = "proxy_strength"


def admit_inputs(obj: Any, known_ids: int) -> None:
    """Refuse inputs and outputs that only one model of three could give a meaning to.

    Args:
        obj: SGLang's `GenerateReqInput` for one request to a guided server, before its images are read.
        known_ids: ids below this one mean a token to all three models.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    for field, reason in REFUSED_FIELDS.items():
        value = getattr(obj, field, None)
        if not (value is None or value is False or (isinstance(value, (list, dict)) and not value)):
            raise RequestError(f"{field} can't be used on a guided server: {reason}.")
    for image in _flat(getattr(obj, "image_data", None)):
        if isinstance(image, dict) and not _PREPARED.isdisjoint(image):
            raise RequestError(
                "precomputed and preprocessed images may fit one model's width only; send the image, each model "
                "embeds it itself."
            )
    ids = getattr(obj, "input_ids", None)
    if ids and not all(0 <= token < known_ids for token in ids):
        wrong = next(token for token in ids if not 0 <= token < known_ids)
        raise RequestError(f"input_ids has {wrong}: the tokenizer knows the ids 0 to {known_ids - 1}.")


def admit_strength(obj: Any, tokenized: Any, config: ProxyConfig | None) -> None:
    """Refuse a strength that is no number, or no strength of this server; else write it into `custom_params`.

    Args:
        obj: SGLang's `GenerateReqInput` for one request; it remembers the strength for its responses.
        tokenized: what will be sent to the scheduler; its sampling parameters are completed.
        config: the server's proxies, or None for a server that serves the base alone.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    sampling_params = tokenized.sampling_params
    strength = read_strength(sampling_params.custom_params, 0.0 if config is None else config.alpha)
    if config is None:
        if not strength.is_base_alone:
            raise RequestError(
                f"this server runs the base model alone and can't guide it ({ALPHA} is {strength.expert:g}). Start "
                "it with --proxy-expert-path and --proxy-amateur-path, or leave custom_params out."
            )
    else:
        if not strength.is_base_alone:
            _refuse_input_logprobs(tokenized)
        sampling_params.custom_params = {**(sampling_params.custom_params or {}), **strength.as_params()}
    setattr(obj, _ATTRIBUTE, strength)


def annotate(obj: Any, output: dict[str, Any]) -> dict[str, Any]:
    """Add the request's strength to an output's `meta_info`; outputs of servers that aren't ours stay as they are."""
    strength: Strength | None = getattr(obj, _ATTRIBUTE, None)
    if strength is not None and "meta_info" in output:
        output["meta_info"].update(strength.as_params())
    return output


def _refuse_input_logprobs(tokenized: Any) -> None:
    """SGLang computes prompt logprobs inside the base's forward, from the base's logits."""
    start = tokenized.logprob_start_len
    if tokenized.return_logprob and start not in (None, -1) and start < len(tokenized.input_ids):
        raise RequestError(
            "logprobs of prompt tokens would be the base model's, not those of the guided distribution. Ask for "
            f"output logprobs only (logprob_start_len -1, echo false), or send {ALPHA} 0 for the base's."
        )


# Fields of a request that a guided server refuses when they are set.
REFUSED_FIELDS = {
    "input_embeds": "embeddings fit one model's width only; send text or input_ids",
    "positional_embed_overrides": "embeddings fit one model's width only; send text or input_ids",
    "video_data": "videos have not been tried with three models; send images",
    "audio_data": "the models read no audio",
    "session_id": "sessions have not been tried with three models; send all turns, their prefix is cached",
    "session_params": "sessions have not been tried with three models; send all turns, their prefix is cached",
    "return_hidden_states": "hidden states would be the base's alone; ask a plain server for them",
    "return_routed_experts": "expert routing is one model's; ask a plain server for it",
    "return_indexer_topk": "sparse attention's choices are one model's; ask a plain server for them",
    "lora_path": "an adapter would change one model of three; merge it into a checkpoint",
    "lora_id": "an adapter would change one model of three; merge it into a checkpoint",
    "multi_item_delimiter_indices": "multi-item scoring bypasses guidance; send one item a request",
    "bootstrap_host": "prefill and decode on different servers would need three KV transfers",
    "bootstrap_room": "prefill and decode on different servers would need three KV transfers",
}

# Keys of an image that was worked on before it came: SGLang takes such dicts in place of a picture.
_PREPARED = frozenset({"format", "feature", "precomputed_embeddings", "pixel_values"})


def _flat(data: Any) -> list[Any]:
    return [item for part in data for item in _flat(part)] if isinstance(data, (list, tuple)) else [data]
