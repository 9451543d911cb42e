"""Streams of Ollama's route: SGLang drops the text of the part that ends, and tells an error as an end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException

ROUTE = "/api/generate"


def told_to_ollama(output: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A streamed output as the parts that SGLang's handler makes lines of.

    Args:
        output: as `TokenizerManager.generate_request` yields it; its text is all of the text so far. The handler writes
            what is new in a part that doesn't end, and the end alone of one that does.

    Raises:
        HTTPException: the answer was ended by an error; before the first line this is the status of the answer, and
            later the connection ends without a line that says `done`.
    """
    reason = output["meta_info"]["finish_reason"]
    if reason is None:
        yield output
        return
    if reason["type"] == "abort":
        status = reason.get("status_code") or HTTPStatus.INTERNAL_SERVER_ERROR
        raise HTTPException(int(status), reason.get("message") or "the request was aborted.")
    yield {**output, "meta_info": {**output["meta_info"], "finish_reason": None}}
    yield output
