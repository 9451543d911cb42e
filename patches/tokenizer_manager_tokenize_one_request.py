"""Read a request's images by our own loader, before SGLang reads them, and answer 400, not 500, when they can't be.

Stock: opens any path and URL that a client names, guesses base64, drops transparency and orientation, decodes JPEGs on
       the GPU; what goes wrong there is a RuntimeError or worse, which /generate turns into a 500 without a sentence.
       A place for part of an image (`<|image_pad|>` alone) ends its image processor without anybody being told, and the
       request waits for ever; other numbers of places than of images are a warning in the log.
Ours:  refuses inputs that fit one model only, and places that don't agree with the images; then hands SGLang PIL
       pictures of mode RGB, which its loader passes through; a failure becomes the ValueError that SGLang answers with
       400.
Why a hook: every route's requests and the image processor's errors pass here.
"""

from fastapi import HTTPException

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.log_rate import sparing_logger
from sgl_proxythinker.pictures.request import pictures_of, read_places
from sgl_proxythinker.requests.tokenized import admit_images
from sgl_proxythinker.server import is_ours, proxy_config
from sgl_proxythinker.upstream.record import Upstream

logger = sparing_logger(__name__, keeps_lines=True)

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.tokenizer_manager:TokenizerManager._tokenize_one_request",
    signature="(self, obj)",
    why="inputs that fit one model only, and unreadable images, would become server errors",
    until="SGLang validates requests through a registry, and raises ValueError for unreadable images on /generate",
    checked={"0.5.17": "6e86ce8485de"},
)


async def around(original, manager, obj):
    if not is_ours(manager.server_args):
        return await original(manager, obj)
    if proxy_config(manager.server_args) is not None:
        admit_images(obj)
    read_places(manager, obj)
    if not obj.contains_mm_input():
        return await original(manager, obj)
    try:
        async with pictures_of(manager, obj):
            return await original(manager, obj)
    except (ValueError, HTTPException, MemoryError):
        raise
    except Exception as error:  # decoders, processors and the network raise dozens of types
        logger.exception("request %s: its image can't be read, it is answered with 400", obj.rid)
        raise RequestError("the request's images can't be processed; the server's log says why.") from error
