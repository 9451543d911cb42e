"""SGLang's HTTP application, closed where three models can't answer, and telling what it serves."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any, get_type_hints

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.http.admin_guard import AdminGuard
from sgl_proxythinker.http.error_bodies import error_body
from sgl_proxythinker.http.middleware import HonestAnswers
from sgl_proxythinker.http.model_list import add_strengths_to_models
from sgl_proxythinker.metrics.refusals import note
from sgl_proxythinker.metrics.requests import request_metrics
from sgl_proxythinker.policy.body_fields import BODIES, declared
from sgl_proxythinker.policy.bounds import bounds_of
from sgl_proxythinker.policy.generate_fields import default_of
from sgl_proxythinker.policy.json_types import Scalars, scalars_of
from sgl_proxythinker.policy.routes import Routes, refusal
from sgl_proxythinker.requests.body import Server
from sgl_proxythinker.requests.grammar_trial import trial_of
from sgl_proxythinker.sentences import sentence_of, tidy
from sgl_proxythinker.server import proxy_config, request_limits


def guard_application(server: ModuleType, manager: Any) -> None:
    """Prepare `sglang.srt.entrypoints.http_server` before it listens.

    Bodies are checked as they are read, answers say how they were guided, errors are one sentence. Adds `proxy` to
    /model_info (/server_info has it from the schedulers' handshake) and strengths to /v1/models, closes routes that act
    on the server to who has no admin key and, on a guided server, answers 400 to every route that is not classified.

    Args:
        manager: SGLang's `TokenizerManager` of this server.
    """
    server_args = manager.server_args
    if (trial := trial_of(manager)) is not None:
        trial.start()
    config = proxy_config(server_args)
    app = server.app
    _add_proxy_to_model_info(server, config)
    add_strengths_to_models(server, config)
    _hide_keys(server)
    guard_routes(app, server_args.admin_api_key, is_guided=config is not None)
    limits = request_limits(server_args)
    app.add_middleware(
        HonestAnswers,
        max_body_mib=limits.max_body_mib,
        max_body_values=limits.max_body_values,
        metrics=request_metrics(manager),
    )
    app.exception_handlers[RequestValidationError] = _invalid
    app.exception_handlers[HTTPException] = app.exception_handlers[StarletteHTTPException] = _refused
    app.state.proxythinker = Server(
        config=config,
        bounds=bounds_of(manager),
        served_name=server_args.served_model_name,
        labels=frozenset(server_args.tokenizer_metrics_allowed_custom_labels or ()),
        defaults=_defaults(server),
        scalars=_scalars(server),
    )


def guard_routes(app: FastAPI, admin_api_key: str | None, *, is_guided: bool) -> None:
    """Close what acts on the server without its admin key, and on a guided server what is refused or not classified."""
    routes = Routes(app.router.routes)
    app.add_middleware(AdminGuard, routes=routes, admin_api_key=admin_api_key)
    if is_guided:
        app.add_middleware(_RouteGuard, routes=routes)


def _defaults(server: ModuleType) -> dict[str, dict[str, Any]]:
    """What each field of a body is when it is not sent, by route."""
    native = {field.name: default_of(field) for field in dataclasses.fields(server.GenerateReqInput)}
    return {"/generate": native} | {
        route: {
            name: field.get_default(call_default_factory=True) for name, field in declared(body).model_fields.items()
        }
        for route, body in BODIES.items()
    }


def _scalars(server: ModuleType) -> dict[str, dict[str, Scalars]]:
    """The types of each field that holds scalars, by route."""
    annotations = {"/generate": get_type_hints(server.GenerateReqInput)} | {
        route: {name: field.annotation for name, field in declared(body).model_fields.items()}
        for route, body in BODIES.items()
    }
    return {
        route: {name: scalars for name, kind in fields.items() if (scalars := scalars_of(kind))}
        for route, fields in annotations.items()
    }


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """A body that SGLang's models can't read."""
    note("field")
    return _answer(request, sentence_of(error.errors()), 400)


async def _refused(request: Request, error: StarletteHTTPException) -> JSONResponse:
    return _answer(request, tidy(str(error.detail)), error.status_code, error.headers)


def _answer(request: Request, sentence: str, status: int, headers: Any = None) -> JSONResponse:
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    return JSONResponse(error_body(sentence, status, path), status_code=status, headers=headers)


class _RouteGuard:
    """Answers 400 with a sentence in place of the routes that bypass guidance."""

    def __init__(self, app: ASGIApp, routes: Routes):
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and (sentence := self._refusal(scope)):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": sentence[:120]})
                return
            note("route")
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            await JSONResponse(error_body(sentence, 400, path), status_code=400)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        route = self._routes.matching(scope)
        return None if route is None else refusal(route)


def _add_proxy_to_model_info(server: ModuleType, config: ProxyConfig | None) -> None:
    described = None if config is None else config.describe()

    async def model_info() -> dict[str, Any]:
        return {**await server.model_info(), "proxy": described}

    # The first route that matches answers, so ours stand before upstream's.
    for path in ("/get_model_info", "/model_info"):
        server.app.router.routes.insert(0, APIRoute(path, model_info, methods=["GET"]))


def _hide_keys(server: ModuleType) -> None:
    """/server_info tells the arguments that the server was started with, and not the keys among them."""

    async def server_info() -> Any:
        return _without_keys(await server.server_info())

    for path in ("/get_server_info", "/server_info"):
        server.app.router.routes.insert(0, APIRoute(path, server_info, methods=["GET"]))


def _without_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "***" if key in _KEYS and inner is not None else _without_keys(inner) for key, inner in value.items()
        }
    return [_without_keys(inner) for inner in value] if isinstance(value, (list, tuple)) else value


_KEYS = frozenset({"api_key", "admin_api_key", "ssl_keyfile_password"})
