"""A guided server as a model of inspect-ai's: OpenAI's chat, and what SGLang says of how an answer was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inspect_ai.model import GenerateConfig, Model, ModelOutput, modelapi
from inspect_ai.model._providers.openai_compatible import OpenAICompatibleAPI

from sgl_proxythinker.evaluation.errors import EvaluationError
from sgl_proxythinker.evaluation.server import Server

MADE_BY, WRITTEN = "meta_info", "written"


@modelapi(name="guided")
class GuidedAPI(OpenAICompatibleAPI):
    """Keeps in the output's metadata what inspect-ai has no place for: `meta_info`, and the text as it was written.

    inspect-ai takes the first `<think>...</think>` out of a text, wherever it stands.
    """

    async def generate(self, *args: Any, **kwargs: Any) -> Any:
        result = await super().generate(*args, **kwargs)
        if isinstance(result, tuple):
            output, call = result
            if isinstance(output, ModelOutput) and call.response:
                choices = call.response["choices"]
                if len(choices) != 1:
                    raise EvaluationError(f"a response with {len(choices)} answers")
                told = {MADE_BY: choices[0].get(MADE_BY), WRITTEN: _written(choices[0]["message"])}
                output.metadata = {**(output.metadata or {}), **told}
        return result


def model_of(server: Server, name: str, connections: int) -> Model:
    """The model that a server serves, asked by so many requests at once."""
    config = GenerateConfig(max_connections=connections)
    api = GuidedAPI(name, f"{server.url}/v1", server.api_key, config, service="guided")
    return Model(api, config)


def _written(message: Mapping[str, Any]) -> str:
    """All that the model wrote, also where the server has a reasoning parser that takes the thought apart."""
    thought, text = message.get("reasoning_content"), message.get("content") or ""
    whole = f"<think>{thought}</think>{text}" if thought else text
    return whole.encode("utf-8", "replace").decode()  # half of a pair is no character, and can't be kept
