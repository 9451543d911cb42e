"""`GET /v1/models` with the strengths that a model's name can carry."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from fastapi.routing import APIRoute

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.requests.model_name import read_model_name


def add_strengths_to_models(server: ModuleType, config: ProxyConfig | None) -> None:
    """List NAME and NAME@0, the base alone, and know every NAME@STRENGTH that this server takes."""

    async def available_models() -> Any:
        listed = await server.available_models()
        name = listed.data[0].id
        listed.data.insert(1, _card(server, f"{name}@0", name))
        return listed

    async def retrieve_model(model: str) -> Any:
        name = server._global_state.tokenizer_manager.served_model_name
        try:
            alpha = read_model_name(model, name)
        except RequestError:
            alpha = None  # a name that this server does not have: 404 is upstream's
        if alpha is not None and (config is not None or alpha == 0):
            return _card(server, model, name)
        return await server.retrieve_model(model)

    for path, endpoint in (("/v1/models/{model:path}", retrieve_model), ("/v1/models", available_models)):
        server.app.router.routes.insert(0, APIRoute(path, endpoint, methods=["GET"]))


def _card(server: ModuleType, model: str, name: str) -> Any:
    length = server._global_state.tokenizer_manager.model_config.context_len
    return server.ModelCard(id=model, root=name, parent=name, max_model_len=length)
