"""What every backend of SGLang programs does to guide them: strengths, pictures, choices."""

from __future__ import annotations

import dataclasses
import os
import weakref
from abc import abstractmethod
from collections import UserDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.frontend.proxy_gen import GuidedChoices, GuidedType
from sgl_proxythinker.guidance import ALPHA, PLAUSIBLE, Defaults, read_guidance, said_over
from sgl_proxythinker.launch.hooks import Stage, install
from sgl_proxythinker.plugin import provide_hooks
from sgl_proxythinker.upstream.frontend_language import (
    BaseBackend,
    ChoicesDecision,
    ChoicesSamplingMethod,
    SglSamplingParams,
    StreamExecutor,
)

SCORED_AT_ONCE = 32  # requests


class GuidedBackend(BaseBackend):
    """Stands before one of SGLang's backends, or a class with its `generate` and `generate_stream`.

    Args:
        default_alpha: strength of `sgl.gen`, and of `proxy_gen` without `alpha`; None for the server's.

    Raises:
        RequestError: default_alpha is no finite number in [-10, 10].
    """

    reads_pictures = True  # `sgl.image` takes whatever `pictures.program.picture_bytes` does

    def __init__(self, default_alpha: float | None, *args: Any) -> None:
        provide_hooks()
        install(Stage.PROGRAMS)
        self.default_params = None if default_alpha is None else {ALPHA: default_alpha}
        read_guidance(self.default_params, Defaults())
        super().__init__(*args)

    @abstractmethod
    def ask(self, data: dict) -> dict:
        """The answer to a request of /generate, as it has both."""

    @abstractmethod
    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Ids of texts, special tokens read as such."""

    @abstractmethod
    def detokenize(self, sequences: list[list[int]]) -> list[str]:
        """Texts of ids, special tokens written out."""

    def without_beginning(self, ids: list[int]) -> str:
        """The text of a prompt without what the tokenizer puts before every text, as Llama's does, by itself."""
        [beginning] = self.tokenize([""])
        return self.detokenize([ids[len(beginning) :] if ids[: len(beginning)] == beginning else ids])[0]

    def generate(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> tuple[str | list[str], Any]:
        _watch_variables(s)
        # SGLang's backend reads one answer a request; of `n` answers, the first one goes on in the program.
        each = [dataclasses.replace(self._guided(sampling_params), n=1) for _ in range(sampling_params.n)]
        with ThreadPoolExecutor(len(each)) as pool:
            answers = list(pool.map(partial(super().generate, s), each))
        if len(answers) == 1:
            return answers[0]
        texts, infos = zip(*answers, strict=True)
        return list(texts), list(infos)

    def generate_stream(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> Iterator[tuple[str, dict]]:
        _watch_variables(s)
        if sampling_params.n > 1:  # their pieces come mixed, and SGLang's backend would join them to one text
            raise RequestError(f"n is {sampling_params.n}, but a stream has one answer: fork the program instead")
        yield from super().generate_stream(s, self._guided(sampling_params))

    def end_program(self, s: StreamExecutor) -> None:
        _watch_variables(s)  # of a program that failed before it generated anything
        super().end_program(s)

    def _guided(self, sampling_params: SglSamplingParams) -> SglSamplingParams:
        """The same parameters, with the strength that is in force, and the trace that the call asks for."""
        fields = {field.name: getattr(sampling_params, field.name) for field in dataclasses.fields(SglSamplingParams)}
        params, dtype = self.default_params, fields["dtype"]
        if isinstance(dtype, GuidedType):
            fields["dtype"], params = dtype.dtype, said_over(params, dtype.params)
        return _GuidedParams(**fields, custom_params=params)

    def _add_images(self, s: StreamExecutor, data: dict) -> None:
        """The pictures of the program so far, in the order of their places in the text."""
        if s.images_:
            data["image_data"] = [encoded for _, encoded in s.images_]

    # Choice

    def select(
        self, s: StreamExecutor, choices: list[str], temperature: float, choices_method: ChoicesSamplingMethod
    ) -> ChoicesDecision:
        """Score the choices under the fused distribution, each token given those before it.

        Prompt logprobs of a guided server would be the base's, so each token is asked for as the next one. The tokens
        are those of text and choice together, from the first one that any choice changes.

        Raises:
            RequestError: a temperature (choices are scored, not sampled), or a choice without a token.
        """
        _watch_variables(s)
        if temperature > 1e-5:
            raise RequestError(f"temperature is {temperature:g}, but choices are scored, not sampled: leave it out")
        params = self.default_params
        if isinstance(choices_method, GuidedChoices):
            choices_method, params = choices_method.method, said_over(params, choices_method.params)
        prompt, *whole = self.tokenize([s.text_, *(s.text_ + choice for choice in choices)])
        start = min(len(os.path.commonprefix([prompt, ids])) for ids in whole)
        if silent := [choice for choice, ids in zip(choices, whole, strict=True) if len(ids) == start]:
            raise RequestError(f"choice {silent[0]!r} adds no token to the text, so there is nothing to score")
        scored = self._score(s, whole, start, params)
        unconditional = None
        if choices_method.requires_unconditional_logprobs:
            alone = self._score(None, [ids[start:] for ids in whole], 1, params)
            unconditional = [[[None, ids[start], None], *rest] for ids, rest in zip(whole, alone, strict=True)]
        return choices_method(
            choices=choices,
            normalized_prompt_logprobs=[sum(token[0] for token in tokens) / len(tokens) for tokens in scored],
            input_token_logprobs=scored,
            output_token_logprobs=[[] for _ in choices],
            unconditional_token_logprobs=unconditional,
        )

    def _score(
        self, s: StreamExecutor | None, sequences: list[list[int]], start: int, params: dict | None
    ) -> list[list[list]]:
        """[logprob, id, text] of each token of each sequence from `start` on, given those before it."""
        prompts = [(row, at) for row, ids in enumerate(sequences) for at in range(start, len(ids))]
        if s is not None and s.images_:
            self._check_round_trip([sequences[row][:at] for row, at in prompts])

        # An id that can't be drawn, by the server's own default, would have no score.
        params = {**(params or {}), PLAUSIBLE: 0.0}

        def score(prompt: tuple[int, int]) -> list:
            row, at = prompt
            data = {
                "input_ids": sequences[row][:at],
                "sampling_params": {"max_new_tokens": 1, "temperature": 0, "custom_params": params},
                "return_logprob": True,
                "return_text_in_logprobs": True,
                "token_ids_logprob": [sequences[row][at]],
            }
            if s is not None:
                self._add_images(s, data)
            return self.ask(data)["meta_info"]["output_token_ids_logprobs"][0][0]

        scores: list[list[list]] = [[] for _ in sequences]
        # One request each: of a batch with pictures, SGLang forgets answers that are done before all are read. The
        # first one goes ahead, so that the others find its prefix cached.
        answers = list(map(score, prompts[:1]))
        with ThreadPoolExecutor(SCORED_AT_ONCE) as pool:
            answers += pool.map(score, prompts[1:])
        for (row, _), answer in zip(prompts, answers, strict=True):
            scores[row].append(answer)
        return scores

    def _check_round_trip(self, prompts: list[list[int]]) -> None:
        """Beside pictures SGLang reads ids as text again; what it reads must be what was meant."""
        if self.tokenize(self.detokenize(prompts)) != prompts:
            raise RuntimeError(
                "these choices break in the middle of a character or word that the tokenizer would join, and can't be "
                "scored beside a picture: let choices begin with a space or on a new line"
            )


@dataclasses.dataclass
class _GuidedParams(SglSamplingParams):
    """Sampling parameters that carry a strength to the server, and whether a trace is wanted."""

    custom_params: dict[str, Any] | None = None

    def to_srt_kwargs(self) -> dict[str, Any]:
        guidance = {} if self.custom_params is None else {"custom_params": self.custom_params}
        return {**super().to_srt_kwargs(), **guidance}


class UnknownVariable(KeyError):
    """A program reads a variable that it does not have."""

    def __str__(self) -> str:
        return self.args[0]  # a KeyError shows its message in quotes


class _Variables(UserDict):
    """A program's variables, with a sentence for one that is not there."""

    def __init__(self, s: StreamExecutor) -> None:
        # The dict itself, no copy: the program's thread may be writing into it just now.
        self.data = s.variables
        # Weak: a program that only the garbage collector frees is ended wherever that runs, and ending takes a lock of
        # `threading` that this thread may hold (Python 3.11 holds it while a thread starts), and then waits forever.
        self._program = weakref.ref(s)

    def __missing__(self, name: str) -> Any:
        program = self._program()
        if program is not None and program.error_ is not None:
            raise UnknownVariable(f"{name!r} was not generated, because the program failed: {program.error_}")
        coming = () if program is None else program.variable_event
        known = ", ".join(map(repr, dict.fromkeys((*self.data, *coming)))) or "none yet"
        raise UnknownVariable(f"the program has no variable {name!r}; it has: {known}")


def _watch_variables(s: StreamExecutor) -> None:
    if not isinstance(s.variables, _Variables):
        s.variables = _Variables(s)
