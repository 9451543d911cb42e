"""Let one prompt with several images be sampled `n` > 1 times, and refuse what would be lost when a batch is divided.

Stock: turns one prompt with `n` > 1 into a batch of one, but leaves its flat list of images, which is then taken for
       one image a prompt: "The length of image_data should be equal to the batch size". When the batch is divided into
       its prompts, hashes of images and wishes for their resolution are dropped.
Ours:  the images of the one prompt become the batch's one entry; those hashes and wishes are refused.
Why a hook: chat builds the same flat list, so no caller can avoid it; and no other function sees a request of every
route before it is divided. The request does not know its server, so this one acts on every request of a process that
started a server of ours.
"""

from sgl_proxythinker.pictures.loader import refuse_settings
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.io_struct:GenerateReqInput._handle_parallel_sampling",
    signature="(self)",
    why="several images in one chat with n > 1 would be refused",
    until="SGLang nests the images of a single prompt itself; tests/test_upstream.py tells",
    checked={"0.5.17": "3f0e8b2b675e"},
)


def around(original, request):
    refuse_settings(request)
    was_single = request.is_single
    original(request)
    images = request.image_data
    if was_single and not request.is_single and _is_flat(images):
        request.image_data = [images]


def _is_flat(images):
    return isinstance(images, list) and bool(images) and not isinstance(images[0], list)
