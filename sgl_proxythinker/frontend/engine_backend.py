"""`EngineBackend`: SGLang programs on the engine in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from sgl_proxythinker.frontend.chat_template import learn_chat_template
from sgl_proxythinker.frontend.guided_backend import GuidedBackend
from sgl_proxythinker.upstream.frontend_language import BaseBackend, RuntimeEndpoint, SglSamplingParams, StreamExecutor

if TYPE_CHECKING:
    from sgl_proxythinker.frontend.engine import Engine

_LOGPROB_FIELDS = ("return_logprob", "logprob_start_len", "top_logprobs_num")


class _EngineEndpoint(BaseBackend):
    """What `RuntimeEndpoint` does over HTTP, on an engine."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        # Programs run in threads of their own, and the engine's requests in its loop: so the loop gets a thread too.
        self._thread = threading.Thread(target=engine.loop.run_forever, name="engine-backend", daemon=True)
        self._thread.start()

    def generate(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> tuple[str | list[str], Any]:
        answer = self._wait(self.engine.async_generate(**self._data(s, sampling_params)))
        return answer["text"], answer["meta_info"]

    def generate_stream(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> Iterator[tuple[str, dict]]:
        chunks = self._wait(self.engine.async_generate(**self._data(s, sampling_params), stream=True))
        seen = 0
        while (chunk := self._wait(anext(chunks, None))) is not None:
            yield chunk["text"][seen:], chunk["meta_info"]
            seen = len(chunk["text"])

    def commit_lazy_operations(self, s: StreamExecutor) -> None:
        data = {"prompt": s.text_, "sampling_params": {"max_new_tokens": 0}}
        self._add_images(s, data)
        self._wait(self.engine.async_generate(**data))

    def flush_cache(self) -> None:
        self._wait(self.engine.tokenizer_manager.flush_cache())

    def close(self) -> None:
        """Give the engine back: its own `generate` works again."""
        self.engine.loop.call_soon_threadsafe(self.engine.loop.stop)
        self._thread.join()

    _handle_dtype_to_regex = RuntimeEndpoint._handle_dtype_to_regex

    def _data(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> dict:
        self._handle_dtype_to_regex(sampling_params)
        asked = {field: getattr(sampling_params, field) for field in _LOGPROB_FIELDS}
        data = {"prompt": s.text_, "sampling_params": sampling_params.to_srt_kwargs()}
        data |= {field: value for field, value in asked.items() if value is not None}
        self._add_images(s, data)
        return data

    def _wait(self, work: Coroutine) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.engine.loop).result()


class EngineBackend(GuidedBackend, _EngineEndpoint):
    """A `sgl_proxythinker.Engine`, for SGLang programs; until `close`, or the end of a `with` block.

    Meanwhile the engine's own `generate` can't be called: its event loop is busy with the programs.

    Args:
        default_alpha: strength of `sgl.gen`, and of `proxy_gen` without `alpha`; None for the engine's.

    Raises:
        RequestError: default_alpha is no finite number in [-10, 10].
    """

    def __init__(self, engine: Engine, *, default_alpha: float | None = None) -> None:
        super().__init__(default_alpha, engine)
        self._tokenizer = engine.tokenizer_manager.tokenizer
        self.chat_template = learn_chat_template(self._render, engine.tokenizer_manager.model_config.is_multimodal)

    def __enter__(self) -> EngineBackend:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ask(self, data: dict) -> dict:
        # The engine has no such argument; the ids' texts are not needed to compare choices.
        wanted = {name: value for name, value in data.items() if name != "return_text_in_logprobs"}
        return self._wait(self.engine.async_generate(**wanted))

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        return [self._tokenizer.encode(text) for text in texts]

    def detokenize(self, sequences: list[list[int]]) -> list[str]:
        return [self._tokenizer.decode(ids, skip_special_tokens=False) for ids in sequences]

    def _render(self, messages: list[dict]) -> str:
        ids = self._tokenizer.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        return self.without_beginning(ids)
