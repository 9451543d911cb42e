"""Errors as clients read them: one sentence in the form of the route's API, and for a fault an id that the log has."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from sgl_proxythinker.log_rate import sparing_logger
from sgl_proxythinker.sentences import tidy

logger = sparing_logger(__name__, keeps_lines=True)

_ANTHROPIC = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
}  # fmt: skip
_KINDS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 413: "ContentTooLarge",
    500: "InternalServerError",
}  # fmt: skip

# How SGLang begins the message of an exception that it did not expect.
_UNEXPECTED = ("Internal server error", "Internal Server Error")


def error_body(message: str, status: int, path: str) -> dict[str, Any]:
    """The JSON of an error; it is read by OpenAI's clients (`error.message`) and by SGLang's (fields at the top)."""
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": {"type": _ANTHROPIC.get(status, "api_error"), "message": message}}
    error = {
        "object": "error",
        "message": message,
        "type": _KINDS.get(status, "Error"),
        "param": None,
        "code": status,
    }
    return {**error, "error": error}


def fault(path: str, reason: str) -> str:
    """Write an unexpected failure into the log under a new id. Returns the sentence that a client gets."""
    number = uuid.uuid4().hex[:12]
    logger.error("error %s on %s: %s", number, path, reason, exc_info=True)
    return f"an internal error ended this request; it stands in the server's log as error {number}."


def rewritten(body: bytes, status: int, path: str) -> bytes:
    """An error's body with a message that is one sentence, whoever wrote it; a fault's is told to the log only.

    Args:
        body: as SGLang made it: JSON, or a text.
    """
    try:
        answer = json.loads(body)
    except ValueError:
        answer = body.decode(errors="replace")
    message = _message(answer)
    if status >= 500 and (message is None or message.startswith(_UNEXPECTED)):
        message = fault(path, message or repr(answer)[:1000])
        return json.dumps(error_body(message, status, path)).encode()
    if message is None:
        return body
    return json.dumps(error_body(tidy(message), status, path)).encode()


def _message(answer: Any) -> str | None:
    """Where the four forms of SGLang's errors have their sentence."""
    if isinstance(answer, str):
        return answer
    if not isinstance(answer, Mapping):
        return None
    error = answer.get("error")
    if isinstance(error, Mapping):
        error = error.get("message")
    found = [error, answer.get("message"), answer.get("detail")]
    return next((text for text in found if isinstance(text, str)), None)
