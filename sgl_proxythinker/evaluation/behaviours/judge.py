"""Reasoning behaviours counted by a judge: a model behind any chat endpoint that speaks OpenAI's protocol.

The judge reads the question and the answer, not the picture, and answers in JSON by a schema (`verdict.py`).

What an answer says is data, and stands between marks that it can't close (`prompt.py`). Whether a judge obeys an order
that stands between them is up to the judge: what it can be talked into is bounded by what it can quote.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai

from sgl_proxythinker.evaluation.behaviours.prompt import fenced, told
from sgl_proxythinker.evaluation.behaviours.verdict import (
    LONGEST_QUOTATION,
    SHORTEST_QUOTATION,
    JudgeError,
    count_quoted,
    read_verdict,
    schema,
    shortened,
)
from sgl_proxythinker.evaluation.records import Behaviour

_REFUSED = (400, 404, 422)


class Judge:
    """An observer that asks a model.

    Args:
        url: of the endpoint, up to and with `/v1`.
        model: as the endpoint names it.
        api_key: what the endpoint wants; many want none.
        name: under which its counts are kept; left out, the model's.
        concurrency: requests at once, at most.
        retries: tries after the first, where the endpoint can't be reached or answers 408, 409, 429 or 5xx. Before each
            the client waits 0.5 s, doubled each time up to 8 s, or as long as the endpoint asks for.
        timeout_seconds: of one try.
        temperature: None leaves it to the endpoint, for models that take none.
        seed: of the drawing, where the endpoint has one. Two runs of one judge differ in it.
        most_tokens: of a verdict. A judge that thinks first needs more.
        most_occurrences: of one behaviour in one answer; a judge can't report more.
        longest_answer: characters. Of a longer one the middle is left out, and the judge is told.
        extra_body: fields of this endpoint that OpenAI's has not, as what keeps a judge from thinking first.
    """

    def __init__(
        self, url: str, model: str, api_key: str = "none", name: str | None = None, *, concurrency: int = 8,
        retries: int = 4, timeout_seconds: float = 300.0, temperature: float | None = 0.0, seed: int = 1,
        most_tokens: int = 4096, most_occurrences: int = 12, longest_answer: int = 40_000,
        extra_body: dict[str, Any] | None = None,
    ):  # fmt: skip
        self.name = name or model
        self._longest_answer, self._most = longest_answer, most_occurrences
        self._told = told(SHORTEST_QUOTATION, LONGEST_QUOTATION, most_occurrences)
        self._at_once = asyncio.Semaphore(concurrency)
        # As people write it, with /v1 or without.
        url = url.rstrip("/").removesuffix("/v1") + "/v1"
        self._client = openai.AsyncOpenAI(base_url=url, api_key=api_key, max_retries=retries, timeout=timeout_seconds)
        form = {"name": "behaviours", "strict": True, "schema": schema(most_occurrences)}
        self._options: dict[str, Any] = {
            "model": model, "max_completion_tokens": most_tokens, "seed": seed, "extra_body": extra_body,
            "response_format": {"type": "json_schema", "json_schema": form},
        }  # fmt: skip
        if temperature is not None:
            self._options["temperature"] = temperature

    async def count(self, question: str, answer: str) -> dict[Behaviour, int]:
        """How often the answer shows each behaviour, as the judge sees it.

        Raises:
            JudgeError: the endpoint can't be reached, refuses, or answers with what is no verdict. A verdict that is
                cut off is none either.
        """
        shown = self.shown(answer)
        async with self._at_once:
            completion = await self._ask(question, shown)
        return count_quoted(read_verdict(completion, self._most), shown)

    def shown(self, answer: str) -> str:
        """What the judge reads of an answer: all of it, or its beginning and its end."""
        left_out = len(answer) - self._longest_answer
        if left_out <= 0:
            return answer
        half = self._longest_answer // 2
        return f"{answer[:half]}\n[{left_out} characters are left out here]\n{answer[half + left_out :]}"

    async def close(self) -> None:
        await self._client.close()

    async def _ask(self, question: str, shown: str) -> Any:
        messages: Any = [
            {"role": "system", "content": self._told},
            {"role": "user", "content": fenced(question, shown)},
        ]
        try:
            return await self._client.chat.completions.create(messages=messages, **self._options)
        except openai.APIStatusError as error:
            meant = "it may not do structured output, or not know this model or an option: "
            raise JudgeError(
                f"the endpoint answered {error.status_code}: {meant if error.status_code in _REFUSED else ''}"
                f"{shortened(error.message)}"
            ) from error
        except openai.APIConnectionError as error:  # a timeout, too
            raise JudgeError(f"the endpoint could not be reached: {error.__cause__ or error}") from error
        except (openai.OpenAIError, json.JSONDecodeError) as error:
            raise JudgeError(f"the endpoint's answer is not one of a chat: {shortened(str(error))}") from error
