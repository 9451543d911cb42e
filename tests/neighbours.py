"""A stream that runs beside a request: whatever that one asks for, the stream's tokens stay what they were."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator

from servers import Server

_PROMPT = "Look at it, and count."


@contextlib.contextmanager
def neighbour(server: Server, alpha: float | None = None, tokens: int = 60) -> Iterator[None]:
    """Stream while the block runs; afterwards compare with the same request alone.

    Raises:
        AssertionError: the stream broke off, or has other tokens than it has alone.
    """
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.extend(_streamed(server, alpha, tokens)))
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert got == _streamed(server, alpha, tokens), "a request beside it changed a stream's tokens, or ended it"


def _streamed(server: Server, alpha: float | None, tokens: int) -> list[int]:
    params = {"max_new_tokens": tokens, "temperature": 0, "ignore_eos": True}
    if alpha is not None:
        params["custom_params"] = {"proxy_alpha": alpha}
    response = server.post("/generate", {"text": _PROMPT, "stream": True, "sampling_params": params}, stream=True)
    events = [line[6:] for line in response.iter_lines() if line.startswith(b"data: ")]
    assert events[-1] == b"[DONE]", "the stream broke off"
    ids = json.loads(events[-2])["output_ids"]
    assert len(ids) == tokens
    return ids
