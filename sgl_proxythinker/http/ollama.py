"""Streams of Ollama's route: SGLang drops the text of the part that ends, and tells an error as an end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException

ROUTE = "/api/generate"


class OllamaStream:
    """One stream, as the parts that SGLang's handler makes lines of.

    The handler takes the text of a part for all of the text so far and writes what is new in it; of a part that ends it
    writes the end alone.

    Args:
        is_incremental: the server has `--incremental-streaming-output`, with which a part has its new text only.
    """

    def __init__(self, is_incremental: bool):
        self._is_incremental = is_incremental
        self._text = ""

    def parts(self, output: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Parts for one output of `TokenizerManager.generate_request`.

        Raises:
            HTTPException: the answer was ended by an error; before the first line this is the status of the answer, and
                later the connection ends without a line that says `done`.
        """
        reason = output["meta_info"]["finish_reason"]
        if reason is not None and reason["type"] == "abort":
            status = reason.get("status_code") or HTTPStatus.INTERNAL_SERVER_ERROR
            raise HTTPException(int(status), reason.get("message") or "the request was aborted.")
        self._text = self._text + output["text"] if self._is_incremental else output["text"]
        output = {**output, "text": self._text}
        yield {**output, "meta_info": {**output["meta_info"], "finish_reason": None}}
        if reason is not None:
            yield output
