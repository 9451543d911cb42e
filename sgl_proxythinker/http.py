"""SGLang's HTTP application, closed where three models can't answer, and telling what it serves."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from fastapi.routing import APIRoute
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sgl_proxythinker.admin import AdminGuard
from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.routes import matching_route, refusal
from sgl_proxythinker.strength import ALPHA, read_strength


def guard_routes(server: ModuleType, config: ProxyConfig | None, admin_api_key: str | None) -> None:
    """Prepare `sglang.srt.entrypoints.http_server` before it listens.

    Adds `proxy` to /model_info (/server_info has it from the schedulers' handshake) and strengths to /v1/models,
    closes the routes that act on the server to who has no admin key, and, on a guided server, answers 400 to every
    route that is not classified as working.
    """
    _add_proxy_to_model_info(server, config)
    _add_strengths_to_models(server, config)
    server.app.add_middleware(AdminGuard, routes=server.app.router.routes, admin_api_key=admin_api_key)
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
        route = matching_route(self._routes, scope)
        return None if route is None else refusal(route)


def _add_proxy_to_model_info(server: ModuleType, config: ProxyConfig | None) -> None:
    described = None if config is None else config.describe()

    async def model_info() -> dict[str, Any]:
        return {**await server.model_info(), "proxy": described}

    # The first route that matches answers, so ours stand before upstream's.
    for path in ("/get_model_info", "/model_info"):
        server.app.router.routes.insert(0, APIRoute(path, model_info, methods=["GET"]))


def _add_strengths_to_models(server: ModuleType, config: ProxyConfig | None) -> None:
    """List NAME and NAME@0, the base alone, and know every NAME@STRENGTH that this server takes."""

    async def available_models() -> Any:
        listed = await server.available_models()
        name = listed.data[0].id
        listed.data.insert(1, _card(server, f"{name}@0", name))
        return listed

    async def retrieve_model(model: str) -> Any:
        name = server._global_state.tokenizer_manager.served_model_name
        if model.startswith(f"{name}@") and _is_strength(model.removeprefix(f"{name}@"), config):
            return _card(server, model, name)
        return await server.retrieve_model(model)

    for path, endpoint in (("/v1/models/{model:path}", retrieve_model), ("/v1/models", available_models)):
        server.app.router.routes.insert(0, APIRoute(path, endpoint, methods=["GET"]))


def _card(server: ModuleType, model: str, name: str) -> Any:
    length = server._global_state.tokenizer_manager.model_config.context_len
    return server.ModelCard(id=model, root=name, parent=name, max_model_len=length)


def _is_strength(text: str, config: ProxyConfig | None) -> bool:
    try:
        strength = read_strength({ALPHA: float(text)}, 0.0)
    except ValueError:
        return False
    return config is not None or strength.is_base_alone
