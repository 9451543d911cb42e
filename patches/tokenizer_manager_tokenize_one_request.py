"""Answer 400, not 500, when a request's image can't be read.

Stock: loads, decodes and preprocesses the request's images; what goes wrong there is a RuntimeError or worse, which
       /generate turns into a 500 without a sentence, or into a stream that breaks off.
Ours:  the same work; its failure names the input and becomes the ValueError that SGLang answers with 400.
Why a hook: the image processor's errors pass here for every route.
"""

from fastapi import HTTPException

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.patches._upstream import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.tokenizer_manager:TokenizerManager._tokenize_one_request",
    signature="(self, obj)",
    why="an unreadable image would be a server error",
    until="SGLang raises ValueError for unreadable inputs on /generate; tests/test_upstream.py tells",
    checked={"0.5.17": "6e86ce8485de"},
)


async def around(original, manager, obj):
    try:
        return await original(manager, obj)
    except (ValueError, HTTPException):
        raise
    except Exception as error:  # decoders, processors and the network raise dozens of types
        if not obj.contains_mm_input():
            raise
        raise RequestError(f"the request's image or video can't be read: {error}") from error
