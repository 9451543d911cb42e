"""A guided server as a model of inspect-ai's: OpenAI's chat, and what SGLang says of how an answer was made."""

from __future__ import annotations

from typing import Any

from inspect_ai.model import ChatMessage, ContentReasoning, GenerateConfig, Model, ModelOutput, modelapi
from inspect_ai.model._providers.openai_compatible import OpenAICompatibleAPI

from sgl_proxythinker.evaluation.server import Server

MADE_BY = "meta_info"


@modelapi(name="guided")
class GuidedAPI(OpenAICompatibleAPI):
    """Keeps `meta_info` of the response, which inspect-ai has no place for, in the output's metadata."""

    async def generate(self, *args: Any, **kwargs: Any) -> Any:
        result = await super().generate(*args, **kwargs)
        if isinstance(result, tuple):
            output, call = result
            if isinstance(output, ModelOutput) and call.response:
                (choice,) = call.response["choices"]
                output.metadata = {**(output.metadata or {}), MADE_BY: choice.get(MADE_BY)}
        return result


def model_of(server: Server, name: str, connections: int) -> Model:
    """The model that a server serves, asked by so many requests at once."""
    config = GenerateConfig(max_connections=connections)
    api = GuidedAPI(name, f"{server.url}/v1", server.api_key, config, service="guided")
    return Model(api, config)


def written(message: ChatMessage) -> str:
    """What the model wrote: inspect-ai takes `<think>...</think>` out of the text of a message."""
    if isinstance(message.content, str):
        return message.content
    parts = (
        f"<think>\n{part.reasoning}\n</think>" if isinstance(part, ContentReasoning) else getattr(part, "text", "")
        for part in message.content
    )
    return "".join(parts)
