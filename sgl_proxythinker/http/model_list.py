"""`GET /v1/models` with the experts and the strengths that a model's name can carry."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from fastapi.routing import APIRoute

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guidance import Pairs
from sgl_proxythinker.requests.model_name import ModelName, read_model_name


def add_strengths_to_models(server: ModuleType, config: ProxyConfig | None) -> None:
    """List NAME, NAME@0, the base alone, and NAME+EXPERT; know every one of them with a strength behind it."""
    pairs: Pairs = {} if config is None else config.pairs
    # The default expert is NAME's, where it is the only one.
    experts = list(pairs) if len(pairs) > 1 else []

    async def available_models() -> Any:
        listed = await server.available_models()
        name = listed.data[0].id
        named = [f"{name}@0", *(f"{name}+{expert}" for expert in experts)]
        listed.data[1:1] = [_card(server, each, name) for each in named]
        return listed

    async def retrieve_model(model: str) -> Any:
        name = server._global_state.tokenizer_manager.served_model_name
        try:
            asked = read_model_name(model, name)
        except RequestError:
            asked = ModelName()  # a name that this server does not have: 404 is upstream's
        says_something = asked != ModelName() and (asked.expert is None or asked.expert in pairs)
        if says_something and (config is not None or asked.alpha == 0):
            return _card(server, model, name)
        return await server.retrieve_model(model)

    for path, endpoint in (("/v1/models/{model:path}", retrieve_model), ("/v1/models", available_models)):
        server.app.router.routes.insert(0, APIRoute(path, endpoint, methods=["GET"]))


def _card(server: ModuleType, model: str, name: str) -> Any:
    length = server._global_state.tokenizer_manager.model_config.context_len
    return server.ModelCard(id=model, root=name, parent=name, max_model_len=length)
