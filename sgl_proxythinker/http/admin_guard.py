"""HTTP routes that act on the whole server: closed without `--admin-api-key`, and none takes a path from a client."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sgl_proxythinker.policy.routes import ADMIN, NAMES_FILES, Routes

ABORT = "/abort_request"

# The bodies that are read here have a few short fields.
_BODY_BYTES = 1 << 20


class AdminGuard:
    """ASGI middleware: 403 where no key is configured, 401 where another one came, 400 for a path from outside.

    SGLang's own middleware asks for the key too, where one is configured, and on most of these routes.
    """

    def __init__(self, app: ASGIApp, routes: Routes, admin_api_key: str | None):
        self._app = app
        self._routes = routes
        self._key = admin_api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = self._routes.matching(scope)
        body: bytes | None = None
        if route == ABORT or route in NAMES_FILES:
            body, receive = await _read(receive)
        if problem := self._problem(route, body, Headers(scope=scope)):
            status, sentence = problem
            error = {
                "object": "error",
                "message": sentence,
                "type": HTTPStatus(status).phrase,
                "param": None,
                "code": status,
            }
            await JSONResponse({**error, "error": error}, status_code=status)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _problem(self, route: str | None, body: bytes | None, headers: Headers) -> tuple[int, str] | None:
        """Status and sentence of a refusal; None where the request may pass."""
        if body is not None and len(body) > _BODY_BYTES:
            return 413, f"the body of {route} is longer than {_BODY_BYTES} bytes: its fields are short."
        try:
            given = orjson.loads(body or b"null")  # as SGLang reads it: another reader takes other bodies for JSON
        except orjson.JSONDecodeError:
            return 400, f"the body of {route} is no valid JSON."
        what = route
        if route == ABORT and is_admin_abort(given):
            what = "abort_all of /abort_request"
        elif route not in ADMIN:
            return None
        if not self._key:
            return (
                403,
                f"{what} acts on the whole server: start it with --admin-api-key KEY to allow it to who knows KEY.",
            )
        if not _has_key(headers.get("authorization"), self._key):
            return (
                401,
                f"{what} acts on the whole server: send the header Authorization: Bearer KEY, with its admin key.",
            )
        for field in NAMES_FILES.get(route, ()):
            if isinstance(given, dict) and given.get(field) is not None:
                return 400, f"{field} of {route} can't be used: no client may name files of the server; leave it out."
        return None


def is_admin_abort(body: Any) -> bool:
    """Whether a body of /abort_request asks to end everybody's requests.

    What pydantic might read as true counts: only null, false and 0 don't.
    """
    return isinstance(body, dict) and body.get("abort_all") not in (None, False)


def _has_key(authorization: str | None, key: str) -> bool:
    scheme, _, sent = (authorization or "").partition(" ")
    return scheme.lower() == "bearer" and secrets.compare_digest(sent.encode(), key.encode())


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """The body, up to a bound, and a `receive` that yields it once more."""
    messages: list[Message] = []
    size = 0
    while size <= _BODY_BYTES:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            break
    body = b"".join(message.get("body", b"") for message in messages)

    async def replay() -> Message:
        return messages.pop(0) if messages else await receive()

    return body, replay
