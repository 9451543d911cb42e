"""Between SGLang's application and the network: bodies of bounded size come in, honest answers go out.

A stream's status and headers are held until its first event is known: so a request that turns out to be wrong gets a
status of 400, and not an error inside of a 200.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sgl_proxythinker.http.error_bodies import error_body, fault, rewritten
from sgl_proxythinker.http.guidance_header import NAME, guidance_header
from sgl_proxythinker.metrics.requests import RequestMetrics
from sgl_proxythinker.requests.body import FOREIGN, OPENAI
from sgl_proxythinker.requests.call import HttpCall, begin
from sgl_proxythinker.sentences import tidy

# Handlers of these answer every exception of their own.
VALIDATED = OPENAI | FOREIGN
# Its parsers run no model, and take apart a text of the client's.
_PARSER = "/parse_function_call"
_STREAMS = (b"text/event-stream", b"application/x-ndjson")


class BodyTooLarge(HTTPException):
    """HTTP 413: the body has more bytes than `--proxy-max-body-mib`, or values than `--proxy-max-body-values`."""


class HonestAnswers:
    """ASGI middleware around the whole application.

    Args:
        app: the application.
        max_body_mib: MiB of a body.
        max_body_values: values of JSON in a body, by its commas. All other requests wait while each is looked at.
        metrics: count the requests that are refused; None: nobody does.
    """

    def __init__(self, app: ASGIApp, max_body_mib: int, max_body_values: int, metrics: RequestMetrics | None = None):
        self._app = app
        self._metrics = metrics
        self._max_bytes, self._max_values = max_body_mib << 20, max_body_values

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        call = begin(path)
        answer = _Answer(call, path, send, self._metrics)
        if path.endswith("\n"):
            # Starlette takes a path with a line break behind it for the path; who knows routes by their names does not.
            await answer.fail(HTTPException(404, "the path ends with a line break: leave it out."), scope, receive)
            return
        try:
            await self._app(scope, self._bounded(receive, call), answer.send)
        except Exception as error:
            if answer.has_begun:
                raise
            await answer.fail(_root(error), scope, receive)

    def _bounded(self, receive: Receive, call: HttpCall) -> Receive:
        seen = values = 0

        async def bounded() -> Message:
            nonlocal seen, values
            message = await receive()
            call.is_gone |= message["type"] == "http.disconnect"
            body = message.get("body", b"")
            seen, values = seen + len(body), values + body.count(b",")
            if seen > self._max_bytes:
                most = self._max_bytes >> 20
                raise BodyTooLarge(413, f"the body has more than {most} MiB (--proxy-max-body-mib raises it).")
            if values > self._max_values:
                raise BodyTooLarge(
                    413,
                    f"the body has more than {self._max_values:,} values by its commas (--proxy-max-body-values raises "
                    "it): send fewer prompts at once.",
                )
            return message

        return bounded


class _Answer:
    """One response on its way out."""

    def __init__(self, call: HttpCall, path: str, send: Send, metrics: RequestMetrics | None):
        self._call = call
        self._path = path
        self._send = send
        self._metrics = metrics
        self._start: Message  # held back, from when it comes
        self._body = b""  # of an error, or of the first events of a stream
        self._is_over = False  # the client has all of it, whatever is still generated
        self.has_begun = False

    async def send(self, message: Message) -> None:
        if self._is_over:
            return
        if message["type"] == "http.response.start":
            self._start = message
            if not self._is_error and not self._is_stream:
                await self._begin()
        elif message["type"] != "http.response.body" or self.has_begun:
            await self._send(self._without_faults(message))
        elif self._is_error:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._replace(*self._error())
        else:
            await self._first_of_stream(message)

    async def fail(self, error: BaseException, scope: Scope, receive: Receive) -> None:
        """Answer with an exception that nobody has answered with yet."""
        if isinstance(error, HTTPException):
            status, sentence = error.status_code, tidy(str(error.detail))
        elif isinstance(error, ValueError):  # SGLang's word for a request that is wrong
            status, sentence = 400, tidy(str(error))
        elif self._path in VALIDATED and not self._call.is_read:
            # Validators of SGLang's that look into a value before its type is known.
            status, sentence = (
                400,
                tidy(f"the body can't be read: a field is of another type than it should be ({error})."),
            )
        elif self._path == _PARSER:
            status, sentence = 400, tidy(f"the text can't be read as calls in the form of this parser ({error}).")
        else:
            status, sentence = 500, fault(self._path, repr(error)[:1000])
        self.has_begun = True
        self._count(status)
        await JSONResponse(error_body(sentence, status, self._path), status_code=status)(scope, receive, self._send)

    def _error(self) -> tuple[int, bytes]:
        """The status and the body of an answer that is an error."""
        status = self._start["status"]
        if status >= 500 and self._call.refusal:
            return 400, json.dumps(error_body(self._call.refusal, 400, self._path)).encode()
        return status, rewritten(self._body, status, self._path)

    async def _first_of_stream(self, message: Message) -> None:
        self._body += message.get("body", b"")
        if message.get("more_body") and self._may_be_followed_by_an_error():
            return
        if found := _error_event(self._body):
            status = 500 if found.get("type") == "api_error" else found.get("code")
            status = status if isinstance(status, int) and 400 <= status < 600 else 400
            body = json.dumps(error_body(str(found.get("message")), status, self._path)).encode()
            await self._replace(status, rewritten(body, status, self._path))
            return
        await self._begin()
        await self._send({**message, "body": self._body})

    def _may_be_followed_by_an_error(self) -> bool:
        # Anthropic's streams open a message before they tell that it can't be answered.
        is_opening = self._body.startswith(b"event: message_start") and self._body.count(b"\nevent: ") == 0
        return not self._body or is_opening

    async def _begin(self) -> None:
        self.has_begun = True
        headers = list(self._start.get("headers", ()))
        if self._call.guidance:
            headers.append((NAME.encode(), guidance_header(self._call.guidance).encode()))
            headers.append((b"access-control-expose-headers", NAME.encode()))
        await self._send({**self._start, "headers": headers})

    async def _replace(self, status: int, body: bytes) -> None:
        """Send a whole JSON answer in place of what was held back."""
        self.has_begun = self._is_over = True
        self._count(status)
        dropped = (b"content-length", b"content-type")
        headers = [pair for pair in self._start.get("headers", ()) if pair[0].lower() not in dropped]
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _count(self, status: int) -> None:
        if self._metrics is not None:
            self._metrics.answered(self._call, status)

    def _without_faults(self, message: Message) -> Message:
        """An event that tells an error in the middle of a stream tells no more than one at its beginning."""
        if not self._is_stream or not message.get("body", b"").startswith(b'data: {"error"'):
            return message
        event, end, rest = message["body"].partition(b"\n\n")
        found = _error_event(event)
        status = found.get("code") if found else None
        body = rewritten(event.removeprefix(b"data: "), status if isinstance(status, int) else 500, self._path)
        return {**message, "body": b"data: " + body + end + rest}

    @property
    def _is_error(self) -> bool:
        return self._start["status"] >= 400

    @property
    def _is_stream(self) -> bool:
        kind = dict(self._start.get("headers", ())).get(b"content-type", b"")
        return kind.startswith(_STREAMS)


def _error_event(events: bytes) -> dict[str, Any] | None:
    """The error that the first event of a stream tells, after what opens a message of Anthropic's."""
    for line in events.splitlines():
        if not line.startswith(b"data: {"):
            continue
        try:
            data = json.loads(line.removeprefix(b"data: "))
        except ValueError:
            return None
        if not isinstance(data, dict):
            return None
        if data.get("type") == "message_start":
            continue
        return data["error"] if isinstance(data.get("error"), dict) else _abort(data)
    return None


def _abort(data: dict[str, Any]) -> dict[str, Any] | None:
    """The refusal of a scheduler, which /generate tells as the end of an answer that has hardly begun."""
    reason = (data.get("meta_info") or {}).get("finish_reason")
    if isinstance(reason, dict) and reason.get("type") == "abort" and reason.get("status_code"):
        return {"message": reason.get("message"), "code": reason["status_code"]}
    return None


def _root(error: BaseException) -> BaseException:
    """What went wrong, under what frameworks make of it: an exception after a start, a group of one."""
    while True:
        if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        elif isinstance(error, RuntimeError) and error.__cause__ is not None:
            error = error.__cause__
        else:
            return error
