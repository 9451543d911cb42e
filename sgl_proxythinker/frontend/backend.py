"""`ProxyBackend`: a running guided server, for SGLang programs that use `proxy_gen`."""

from __future__ import annotations

from typing import Any

from sgl_proxythinker.frontend.chat_template import learn_chat_template
from sgl_proxythinker.frontend.guided_backend import GuidedBackend
from sgl_proxythinker.upstream.frontend_language import RuntimeEndpoint, http_request

START = "start one with: python -m sglang.launch_server --plugin proxythinker ..."


class ProxyBackend(GuidedBackend, RuntimeEndpoint):
    """A running guided server.

    Args:
        url: of the server, as in "http://127.0.0.1:30000".
        default_alpha: strength of `sgl.gen`, and of `proxy_gen` without `alpha`; None for the server's.
        chat_template_name: one of SGLang's, in place of the server's own.

    Raises:
        ValueError: the url has no scheme.
        ConnectionError: no server answers there.
        RuntimeError: a server answers that does not guide.
        RequestError: default_alpha is no finite number in [-10, 10].
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        default_alpha: float | None = None,
        verify: str | None = None,
        chat_template_name: str | None = None,
    ) -> None:
        url = url.rstrip("/")
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"the server's url is {url!r}: it begins with http:// or https://")
        try:
            super().__init__(default_alpha, url, api_key, verify, chat_template_name)
        except OSError as error:
            raise ConnectionError(f"no server answers at {url} ({error}); {START}") from error
        if "proxy" not in self.model_info:
            raise RuntimeError(f"the server at {url} runs without the plugin proxythinker and can't guide; {START}")
        if chat_template_name is None:
            self.chat_template = learn_chat_template(self._render, bool(self.model_info.get("has_image_understanding")))

    def ask(self, data: dict) -> dict:
        return self._post("/generate", data)

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        return self._post("/tokenize", {"prompt": texts})["tokens"]

    def detokenize(self, sequences: list[list[int]]) -> list[str]:
        return self._post("/detokenize", {"tokens": sequences, "skip_special_tokens": False})["text"]

    def _render(self, messages: list[dict]) -> str:
        """What /v1/chat/completions makes of messages, as a text for /generate."""
        return self.without_beginning(self._post("/tokenize", {"messages": messages})["tokens"])

    def _assert_success(self, response: Any) -> None:
        """Raises RuntimeError with the server's sentence where there is one."""
        if response.status_code == 200:
            return
        try:
            content = response.json()
        except ValueError:
            super()._assert_success(response)
        error = content.get("error", content) if isinstance(content, dict) else content
        raise RuntimeError(error.get("message", error) if isinstance(error, dict) else error)

    def _post(self, route: str, data: dict) -> Any:
        response = http_request(self.base_url + route, json=data, api_key=self.api_key, verify=self.verify)
        self._assert_success(response)
        return response.json()
