"""The images of chat messages, as SGLang reads them out of parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sgl_proxythinker.errors import RequestError


def images_of_messages(messages: Sequence[Any]) -> list[Any]:
    """SGLang's `ImageData` of each image part, in order.

    Args:
        messages: of SGLang's `ChatCompletionRequest`.

    Raises:
        RequestError: HTTP 400: there is a video or a sound, which would be lost.
    """
    from sgl_proxythinker.upstream.pictures import process_content_for_template_format

    images: list[Any] = []
    others: list[Any] = []
    for message in messages:
        process_content_for_template_format(message.model_dump(), "openai", images, others, others, [])
    if others:
        raise RequestError("messages have a video or a sound, and the models read texts and images: leave it out.")
    return images
