"""Wishes about a picture's resolution: refused with the flag that sets it, never ignored.

Base, expert and amateur read the same patches, and SGLang's processor takes its pixel limits from the server's start.
So a request can't choose them. The functions below look at JSON as it came, since SGLang's own models of a body drop
what they don't declare.
"""

from __future__ import annotations

from typing import Any

from sgl_proxythinker.errors import LaunchError, RequestError

# What Qwen's processors, vLLM, LMDeploy and SGLang's other models call it; `detail` is OpenAI's.
_RESOLUTION = frozenset(
    """
    max_pixels min_pixels total_pixels resized_height resized_width min_image_tokens max_image_tokens
    max_dynamic_patch min_dynamic_patch image_max_dynamic_patch video_max_dynamic_patch images_config image_config
    images_kwargs mm_processor_kwargs mm_kwargs processor_kwargs preprocess_kwargs size do_resize do_rescale
    do_normalize image_resolution vl_high_resolution_images media_resolution resolution
    """.split()
)
# At the top of a body `size` and the like may mean anything else; these can mean nothing else.
_AT_THE_TOP = _RESOLUTION - {"size", "resolution", "do_resize", "do_rescale", "do_normalize"}
_PREPARED = frozenset(
    {"format", "feature", "precomputed_embeddings", "pixel_values", "image_grid_thw", "hash", "pad_value"}
)

_FLAG = '--mm-process-config \'{"image": {"min_pixels": ..., "max_pixels": ...}}\' sets both for the whole server'


def check_picture_part(part: dict[str, Any], where: str) -> None:
    """Refuse what a content part of a chat asks for and would not get.

    Args:
        part: one entry of a message's `content`, of /v1/chat/completions, /v1/messages or /tokenize, as JSON has it.
        where: of it in error messages, as "messages[0].content[1]".

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    kind = part.get("type")
    if kind in ("image_url", "input_image"):
        _refuse_resolution(part, where)
        inner = part.get("image_url")
        if isinstance(inner, dict):
            _refuse_resolution(inner, f"{where}.image_url")
            if not isinstance(inner.get("url"), str):
                raise RequestError(f"{where}.image_url has no url: a string is wanted.")
        elif not isinstance(inner, str):
            raise RequestError(f'{where} has no image: {{"image_url": {{"url": "..."}}}} is wanted.')
    elif kind == "image":
        _refuse_resolution(part, where)
        source = part.get("source")
        if isinstance(source, dict):
            _refuse_resolution(source, f"{where}.source")
            _check_source(source, f"{where}.source")
        else:
            raise RequestError(
                f'{where} is of the type "image" without a source: chat takes {{"type": "image_url", "image_url": '
                '{"url": "..."}}.'
            )
    elif kind == "tool_result" and isinstance(part.get("content"), list):
        for number, inner in enumerate(part["content"]):
            if isinstance(inner, dict):
                check_picture_part(inner, f"{where}.content[{number}]")


def _check_source(source: dict[str, Any], where: str) -> None:
    """Of Anthropic's sources SGLang reads the two that hold an image, and drops an image under any other type."""
    kind: Any = source.get("type")
    field = {"base64": "data", "url": "url"}.get(kind)
    if field is None:
        raise RequestError(f"{where}.type is {_short(kind)}: send base64 with data, or url with url.")
    if not isinstance(source.get(field), str) or not source[field]:
        raise RequestError(f"{where} has no image: its type is {kind}, so {field} is wanted.")
    other = "url" if field == "data" else "data"
    if source.get(other) is not None:
        raise RequestError(f"{where} has data and url: send one of them, as its type says.")


def check_image_entry(entry: Any, where: str) -> None:
    """Refuse what an entry of `image_data` of /generate asks for and would not get.

    Args:
        entry: a string, a dict with `url`, a list of them, or null, as JSON has it.
        where: of it in error messages, as "image_data[0]".

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    if isinstance(entry, list):
        for number, inner in enumerate(entry):
            check_image_entry(inner, f"{where}[{number}]")
    elif isinstance(entry, dict):
        if not _PREPARED.isdisjoint(entry):
            raise RequestError(
                f"{where} is an image that was worked on before it came, which may fit one model's width only: send "
                "the image itself."
            )
        _refuse_resolution(entry, where)
        if not isinstance(entry.get("url"), str):
            raise RequestError(f'{where} has no url: a string or {{"url": "..."}} is wanted.')
    elif not (entry is None or isinstance(entry, str)):
        raise RequestError(f"{where} is {_short(entry)}: a string is wanted.")


def check_picture_settings(body: dict[str, Any]) -> None:
    """Refuse resolutions at the top of a body, and hashes of pictures, which are the server's to make.

    Args:
        body: of any route that takes pictures; or a dict of the fields of SGLang's request.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    if body.get("mm_hashes"):
        raise RequestError("mm_hashes can't be sent: the server makes the keys of its caches itself. Leave it out.")
    _refuse(body, _AT_THE_TOP, "")


def check_process_config(config: dict[str, Any] | None) -> None:
    """Refuse a server whose `--mm-process-config` has one limit of pixels alone: Qwen's processors ignore it then.

    Raises:
        LaunchError: which one is missing.
    """
    image = (config or {}).get("image") or {}
    given = {"min_pixels", "max_pixels"} & image.keys()
    if len(given) == 1:
        raise LaunchError(
            f"--mm-process-config has {given.pop()} of images alone, which is ignored: give min_pixels and "
            'max_pixels, as in \'{"image": {"min_pixels": 3136, "max_pixels": 1003520}}\'.'
        )


def check_detail(detail: Any, where: str) -> None:
    """Refuse a `detail` other than OpenAI's default."""
    if detail not in (None, "auto"):
        raise RequestError(
            f'{where} is {_short(detail)}: every image is read at one resolution, so "auto" is taken only; {_FLAG}.'
        )


def _refuse_resolution(fields: dict[str, Any], where: str) -> None:
    check_detail(fields.get("detail"), f"{where}.detail")
    _refuse(fields, _RESOLUTION, f"{where}.")


def _refuse(fields: dict[str, Any], names: frozenset[str], prefix: str) -> None:
    for name in fields:
        if name in names and fields[name] is not None:
            raise RequestError(
                f"{prefix}{name} can't be chosen by a request, since all models read the same patches: {_FLAG}."
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
