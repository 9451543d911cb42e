"""The images of chat messages, as SGLang reads them out of parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def images_of_messages(messages: Sequence[Any]) -> list[Any]:
    """SGLang's `ImageData` of each image part, in order.

    Args:
        messages: of SGLang's `ChatCompletionRequest`.
    """
    from sgl_proxythinker.upstream.pictures import process_content_for_template_format

    images: list[Any] = []
    for message in messages:
        process_content_for_template_format(message.model_dump(), "openai", images, [], [], [])
    return images
