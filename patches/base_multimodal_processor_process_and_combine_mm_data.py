"""Let every failure of the image processor answer its request.

Stock: runs the processor in a thread. A StopIteration (more places than images raise it) can't be put into the future
       that the request waits for, so the request is never answered.
Ours:  the same, and a StopIteration becomes an error as any other.
Why a hook: SGLang has no place for one's own between the thread and the processor.
"""

from sgl_proxythinker.pictures.loader import answered
from sgl_proxythinker.server import is_ours
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.multimodal.processors.base_processor:BaseMultimodalProcessor.process_and_combine_mm_data",
    signature="(self, base_output, mm_tokens, processor=None, **kwargs)",
    why="an image processor that ends too early would leave its request without an answer",
    until="SGLang's executor of processors gives back a StopIteration",
    checked={"0.5.17": "76a083e659ab"},
)


def around(original, this, *args, **kwargs):
    if not is_ours(this.server_args):
        return original(this, *args, **kwargs)
    return answered(original)(this, *args, **kwargs)
