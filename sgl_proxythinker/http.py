"""SGLang's HTTP application, closed where three models can't answer, and telling what it serves."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from fastapi.routing import APIRoute
from starlette.responses import JSONResponse
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.routes import refusal


def guard_routes(server: ModuleType, config: ProxyConfig | None) -> None:
    """Prepare `sglang.srt.entrypoints.http_server` before it listens.

    Adds `proxy` to /model_info (/server_info has it from the schedulers' handshake) and, on a guided server, answers
    400 to every route that is not classified as working.
    """
    _add_proxy_to_model_info(server, config)
    if config is not None:
        server.app.add_middleware(_RouteGuard, routes=server.app.router.routes)


class _RouteGuard:
    """Answers 400 with a sentence in place of the routes that bypass guidance."""

    def __init__(self, app: ASGIApp, routes: list[Any]):
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and (sentence := self._refusal(scope)):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": sentence[:120]})
                return
            error = {"object": "error", "message": sentence, "type": "BadRequest", "param": None, "code": 400}
            # The OpenAI client reads `error.message`, SGLang's own errors have the fields at the top.
            await JSONResponse({**error, "error": error}, status_code=400)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        for route in self._routes:
            match, _ = route.matches(scope)
            if match is Match.FULL:
                # A router that FastAPI includes as a whole has no path of its own.
                return refusal(getattr(route, "path", None) or scope["path"].removeprefix(scope.get("root_path", "")))
        return None  # not a route of this server: 404 is upstream's


def _add_proxy_to_model_info(server: ModuleType, config: ProxyConfig | None) -> None:
    described = None if config is None else config.describe()

    async def model_info() -> dict[str, Any]:
        return {**await server.model_info(), "proxy": described}

    # The first route that matches answers, so ours stand before upstream's.
    for path in ("/get_model_info", "/model_info"):
        server.app.router.routes.insert(0, APIRoute(path, model_info, methods=["GET"]))
