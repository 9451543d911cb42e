"""The server that is evaluated: what it serves, and whether it is still there."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

from sgl_proxythinker.evaluation.errors import EvaluationError

_NO_ANSWER = (OSError, ValueError, http.client.HTTPException)
_WITHIN_S = 30
_ALIVE_WITHIN_S, _LOOKS = 10, 3
_GATEWAYS = (502, 503, 504)  # what a router in front says of a server that is slow, or gone
# Of `/server_info`, what decides which tokens are answered, or how fast.
_TOLD = (
    "model_path", "served_model_name", "revision", "tokenizer_path", "dtype", "quantization", "kv_cache_dtype",
    "attention_backend", "sampling_backend", "mm_process_config", "context_length", "tp_size", "random_seed",
    "chat_template", "enable_deterministic_inference", "version", "proxythinker_version",
)  # fmt: skip


class ServedModel(NamedTuple):
    """The first of the models that a server lists."""

    name: str
    context_tokens: int | None  # of a question and its answer together; None: it doesn't say


class Server:
    """An OpenAI-compatible server.

    Args:
        url: without `/v1`.
        api_key: sent as a bearer's; any where the server wants none.
    """

    def __init__(self, url: str, api_key: str):
        self.url, self.api_key = url.rstrip("/").removesuffix("/v1"), api_key
        if not self.url.startswith(("http://", "https://")):
            raise EvaluationError(f"--url {url} begins with neither http:// nor https://: say http://{url}")

    def model(self) -> ServedModel:
        """What it serves.

        Raises:
            EvaluationError: it does not answer, or serves none.
        """
        try:
            first = self._get("/v1/models", _WITHIN_S)["data"][0]
            return ServedModel(first["id"], first.get("max_model_len"))
        except (*_NO_ANSWER, LookupError, TypeError, AttributeError) as problem:
            raise EvaluationError(
                f"{self.url} does not say which model it serves: {problem}. Start it, or correct --url and --api-key."
            ) from problem

    def info(self) -> dict[str, Any]:
        """SGLang's `/server_info`, as far as it says how answers are made; of another server nothing."""
        try:
            told = self._get("/server_info", _WITHIN_S)
        except _NO_ANSWER:
            return {}
        if not isinstance(told, dict):
            return {}
        return {name: told[name] for name in _TOLD if name in told} | {"proxy": told.get("proxy")}

    @staticmethod
    def is_sglang(info: Mapping[str, Any]) -> bool:
        """Whether that is what SGLang says of itself. vLLM's `/server_info` has no such field."""
        return "model_path" in info

    def is_alive(self) -> bool:
        """Whether it answers. One that is gone refuses a connection at once; one that is only slow is asked again."""
        for _ in range(_LOOKS):
            try:
                self._get("/v1/models", _ALIVE_WITHIN_S)
                return True
            except TimeoutError:
                continue
            except urllib.error.HTTPError as problem:
                if problem.code not in _GATEWAYS:
                    return True
            except urllib.error.URLError as problem:
                if not isinstance(problem.reason, TimeoutError):
                    return False
            except _NO_ANSWER:
                return False
        return False

    def _get(self, path: str, timeout_s: float) -> Any:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.api_key}"})
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return json.load(response)
