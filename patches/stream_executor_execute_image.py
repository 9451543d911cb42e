"""Let `sgl.image` take a path, bytes, a PIL picture of any mode, or a URL.

Stock: takes a path as a string, bytes, or a picture that PNG can hold; anything else fails with a Python error.
Ours:  the same statement with the picture's bytes, which SGLang encodes; for programs on a backend of ours only.
Why a hook: SGLang's interpreter encodes the picture before any backend sees it.
"""

from sgl_proxythinker.pictures.program import picture_bytes
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.lang.interpreter:StreamExecutor._execute_image",
    signature="(self, expr)",
    why="programs could show neither a pathlib.Path, nor a picture of mode CMYK, nor a URL",
    until="SGLang's programs take them",
    checked={"0.5.17": "ff3a415c9e20"},
)


def around(original, executor, expr):
    if not getattr(executor.backend, "reads_pictures", False):
        return original(executor, expr)
    return original(executor, type(expr)(picture_bytes(expr.path)))
