"""The pictures of one request on their way through SGLang's main process: places, loading, keys."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

from sgl_proxythinker.architectures import QWEN_PLACE
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.pictures.key import set_keys
from sgl_proxythinker.pictures.loader import PictureLoader
from sgl_proxythinker.pictures.places import PlaceIds, places_in_ids, places_in_text
from sgl_proxythinker.server import proxy_config, request_limits

# On SGLang's TokenizerManager. Only the offline engine sets the second one: a manager without it serves strangers.
_LOADER = "proxy_picture_loader"
_IS_LOCAL = "proxy_serves_this_process"

READS_TEXT_ONLY = (
    "this server's models read text only, and images, videos or sounds came with the prompt: leave them out, or ask a "
    "server of a vision-language model."
)

# On SGLang's request: digests of its pictures, for their keys.
_DIGESTS = "proxy_picture_digests"


def serve_this_process(manager: Any) -> None:
    """Say that requests come from this process, so that paths and hosts are the caller's own business."""
    setattr(manager, _IS_LOCAL, True)


def read_places(manager: Any, obj: Any) -> None:
    """Check that a prompt has as many places as pictures, and bring each place to the form that SGLang reads.

    Processors of other families than Qwen's write places in other ways; theirs are SGLang's to count.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    processor = manager.mm_processor
    if processor is None and obj.contains_mm_input():
        raise RequestError(READS_TEXT_ONLY)
    tokens: Any = getattr(processor, "mm_tokens", None)
    if getattr(tokens, "image_token", None) != QWEN_PLACE or getattr(obj, "video_data", None):
        return
    # SGLang's own first request has a picture, whatever the chat template makes of it; clients' get the sentence below.
    if manager.server_status.name == "Starting" and not getattr(manager, _IS_LOCAL, False):
        return
    pictures = len(_sources(obj))
    if obj.text:
        obj.text = places_in_text(obj.text, pictures)
    elif obj.input_ids:
        ids = PlaceIds(
            processor.vision_start_token_id, tokens.image_token_id, processor.vision_end_token_id,
            tokens.video_token_id,
        )  # fmt: skip
        obj.input_ids = places_in_ids(obj.input_ids, pictures, ids)
    elif pictures:
        places_in_text("", pictures)


@contextlib.asynccontextmanager
async def pictures_of(manager: Any, obj: Any) -> AsyncIterator[None]:
    """Load a request's pictures for as long as SGLang processes them; then the request has what came again.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    is_local = getattr(manager, _IS_LOCAL, False)
    sources = _sources(obj)
    if is_local and any(_is_prepared(source) for source in sources):
        if proxy_config(manager.server_args) is None:  # a guided engine has refused them already
            yield
            return
    if not is_local:
        _refuse_other_media(obj)
    loader = getattr(manager, _LOADER, None)
    if loader is None:
        loader = PictureLoader(request_limits(manager.server_args))
        setattr(manager, _LOADER, loader)
    sent = obj.image_data
    async with loader.load(sources, is_local) as loaded:
        obj.image_data = loaded.images or None
        setattr(obj, _DIGESTS, loaded.digests)
        try:
            yield
        finally:
            obj.image_data = sent


def give_keys(manager: Any, obj: Any, mm_inputs: Any) -> None:
    """Give each picture its key, once, in the main process: every rank and every model takes it from there.

    Args:
        mm_inputs: SGLang's `MultimodalProcessorOutput` of the request, before it is sent to the schedulers.
    """

    from sgl_proxythinker.upstream.pictures import schedule_batch

    if not mm_inputs.mm_items:
        return
    digests, limits = getattr(obj, _DIGESTS, ()), manager.server_args.mm_process_config
    set_keys(mm_inputs.mm_items, digests, limits, schedule_batch.MM_PAD_SHIFT_VALUE)
    # Where it is not None, it was made with SGLang's own ids; without it the scheduler makes it from the items'.
    mm_inputs.padded_input_ids = None


def _sources(obj: Any) -> list[Any]:
    """What came for each picture of one prompt, as a flat list; SGLang also takes one that is nested once."""
    data = obj.image_data
    if data is None:
        return []
    if not isinstance(data, list | tuple):
        return [data]
    if any(isinstance(row, list | tuple) for row in data):
        if len(data) > 1:
            raise RequestError(f"image_data has {len(data)} rows, and there is 1 prompt: send one list of its images.")
        data = list(itertools.chain(*data))
        if any(isinstance(entry, list | tuple) for entry in data):
            raise RequestError("image_data is nested more than once: send one list of images for each prompt.")
    return [entry for entry in data if entry is not None]


def _is_prepared(source: Any) -> bool:
    return isinstance(source, dict) and "format" in source


def _refuse_other_media(obj: Any) -> None:
    """Videos and sounds of a plain server: SGLang would open any path and any URL for a client."""
    for field in ("video_data", "audio_data"):
        entries = getattr(obj, field, None)
        for entry in entries if isinstance(entries, list | tuple) else [entries]:
            url = getattr(entry, "url", entry.get("url") if isinstance(entry, dict) else entry)
            if url is not None and not (isinstance(url, str) and url[:5].lower() == "data:"):
                raise RequestError(f"{field} takes data: URLs only: this server opens no files and URLs for it.")
