"""What `sampling_params` may hold: every field of SGLang's `SamplingParams` that is for callers, its type and range.

A name that is not declared here is refused: SGLang's own fields (`is_normalized` and the like) would skip its checks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guards.stop_regex import check_stop_regex
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.policy.bounds import Bounds
from sgl_proxythinker.sentences import sentence_of, shown, tidy

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

MAX_TEMPERATURE = 1e6  # logits divided by it are still told apart in float32
MIN_REPETITION_PENALTY = 0.01  # logits are divided by it; much less would overflow float32
MAX_BIAS = 1e9  # added to logits of float32, and divided by a temperature of at least 1e-6
MAX_STOP_CHARS = 1024


def _at_most(limit: str, what: str) -> AfterValidator:
    """The value, or the length of a container, is within a limit that is a flag."""

    def check(value: Any, info: ValidationInfo[Bounds]) -> Any:
        number = len(value) if hasattr(value, "__len__") else value
        most = getattr(info.context.limits, limit)
        if number > most:
            flag = "--proxy-" + limit.replace("_", "-")
            raise ValueError(f"{number:,} {what} are more than this server takes, {most:,} ({flag} raises it)")
        return value

    return AfterValidator(check)


def _known(token: int, info: ValidationInfo[Bounds]) -> int:
    known = info.context.known_ids
    if not 0 <= token < known:
        raise ValueError(f"the tokenizer knows the ids 0 to {known - 1}")
    return token


def _listed(value: Any) -> Any:
    """One or several: a list of them."""
    return value if value is None or isinstance(value, list) else [value]


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("an empty text stands everywhere, so every answer would end at once; leave it out")
    return text


def _bias_keys(value: Any) -> Any:
    """JSON has only texts as names; the ids that they spell."""
    if not isinstance(value, dict):
        return value
    for key in value:
        if not (isinstance(key, str) and re.fullmatch(r"[0-9]{1,18}", key) or type(key) is int):
            raise ValueError(f"its name {shown(key)} is no token id")
    return {int(key): weight for key, weight in value.items()}


def _schema(text: str, info: ValidationInfo[Bounds]) -> str:
    if not isinstance(_parsed(text, info.context.limits), (dict, bool)):
        raise ValueError("a JSON schema is an object")
    return text


class _Structure(BaseModel):
    model_config = ConfigDict(strict=True)

    begin: Annotated[str, Field(min_length=1)]
    schema_: dict[str, Any] | bool = Field(alias="schema")
    end: str


class _Structures(BaseModel):
    """A structural tag as SGLang has it; xgrammar's own form is an object with `format`."""

    model_config = ConfigDict(strict=True)

    structures: Annotated[list[_Structure], Field(min_length=1)]
    triggers: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


def _structural_tag(text: str, info: ValidationInfo[Bounds]) -> str:
    tag = _parsed(text, info.context.limits)
    if isinstance(tag, dict) and isinstance(tag.get("format"), dict):
        return text
    if not isinstance(tag, dict) or not tag.keys() & {"structures", "triggers"}:
        raise ValueError(
            'send {"structures": [{"begin": "..", "schema": {..}, "end": ".."}], "triggers": [".."]}, or xgrammar\'s '
            '{"format": {..}}'
        )
    try:
        tags = _Structures.model_validate(tag)
    except ValidationError as error:
        raise ValueError(sentence_of(error.errors()).rstrip(".")) from None
    for number, structure in enumerate(tags.structures):
        if not structure.begin.startswith(tuple(tags.triggers)):
            raise ValueError(f"structures[{number}].begin begins with none of the triggers, so it would never be used")
    return text


def _parsed(text: str, limits: Limits) -> Any:
    """The JSON value that a text is, no deeper than schemas may be."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(_too_deep(limits)) from None
    except ValueError as error:
        raise ValueError(f"it is no JSON: {tidy(str(error))[:200]}") from None
    if depth(value) > limits.max_schema_depth:
        raise ValueError(_too_deep(limits))
    return value


def _too_deep(limits: Limits) -> str:
    return f"it has more than {limits.max_schema_depth} levels, which this server takes (--proxy-max-schema-depth)"


def depth(value: Any) -> int:
    """Levels of objects and lists in a JSON value, without recursion: a client chooses how deep it is."""
    deepest, rest = 0, [(value, 1)]
    while rest:
        item, level = rest.pop()
        if isinstance(item, (dict, list)):
            deepest = max(deepest, level)
            rest.extend((inner, level + 1) for inner in (item.values() if isinstance(item, dict) else item))
    return deepest


TokenId = Annotated[int, AfterValidator(_known)]
Grammar = Annotated[str, _at_most("max_schema_bytes", "characters of a grammar")]
Weight = Annotated[float, Field(allow_inf_nan=False)]


class SamplingFields(BaseModel):
    """The sampling parameters of one request, as callers may send them; null is the default everywhere."""

    model_config = ConfigDict(strict=True, extra="forbid")

    max_new_tokens: Annotated[int, Field(ge=0, le=INT32_MAX)] | None = None
    min_new_tokens: Annotated[int, Field(ge=0, le=INT32_MAX)] | None = None
    n: Annotated[int, Field(ge=1), _at_most("max_n", "samples")] | None = None
    temperature: Annotated[Weight, Field(ge=0, le=MAX_TEMPERATURE)] | None = None
    top_p: Annotated[Weight, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=INT32_MAX)] | None = None
    min_p: Annotated[Weight, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[Weight, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[Weight, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[Weight, Field(ge=MIN_REPETITION_PENALTY, le=2)] | None = None
    logit_bias: (
        Annotated[
            dict[TokenId, Annotated[Weight, Field(ge=-MAX_BIAS, le=MAX_BIAS)]],
            BeforeValidator(_bias_keys),
            _at_most("max_bias", "ids"),
        ]
        | None
    ) = None
    stop: (
        Annotated[
            list[Annotated[str, Field(max_length=MAX_STOP_CHARS), AfterValidator(_not_empty)]],
            BeforeValidator(_listed),
            _at_most("max_stops", "stop strings"),
        ]
        | None
    ) = None
    stop_token_ids: Annotated[list[TokenId | None], _at_most("max_stops", "stop tokens")] | None = None
    stop_regex: Annotated[list[Annotated[str, Field(max_length=MAX_STOP_CHARS)]], BeforeValidator(_listed)] | None = (
        None
    )
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    no_stop_trim: bool | None = None
    stream_interval: Annotated[int, Field(ge=1, le=INT32_MAX)] | None = None
    sampling_seed: Annotated[int, Field(ge=-INT64_MAX - 1, le=INT64_MAX)] | None = None
    json_schema: Annotated[Grammar, AfterValidator(_schema)] | None = None
    regex: Grammar | None = None
    ebnf: Grammar | None = None
    structural_tag: Annotated[Grammar, AfterValidator(_structural_tag)] | None = None
    custom_params: Any = None  # read by `guidance`


def check_sampling_params(params: Any, bounds: Bounds, name: Callable[[str], str] = str) -> None:
    """Refuse sampling parameters that SGLang's scheduler could not read, or would read as something else.

    Args:
        params: of one request, as they came.
        bounds: the server's.
        name: what the client calls a field of SGLang's.

    Raises:
        RequestError: names the field, what came and what is wanted.
    """
    if params is None:
        return
    if not isinstance(params, dict):
        raise RequestError(f'sampling_params is {shown(params)}: send an object, such as {{"max_new_tokens": 32}}.')
    try:
        fields = SamplingFields.model_validate(params, context=bounds)
    except ValidationError as error:
        errors: list[dict[str, Any]] = [
            {**item, "loc": (name(str(item["loc"][0])), *item["loc"][1:])} for item in error.errors()
        ]
        if unknown := [item for item in errors if item["type"] == "extra_forbidden"]:
            raise RequestError(_unknown(str(unknown[0]["loc"][0]))) from None
        raise RequestError(sentence_of(errors)) from None
    check_stop_regex(fields.stop_regex)
    if fields.top_k == 0:
        raise RequestError(f"{name('top_k')} is 0: send -1 for all tokens, or at least 1.")
    if fields.ignore_eos and fields.stop_token_ids:
        raise RequestError(
            f"{name('ignore_eos')} is true and {name('stop_token_ids')} is set, which would not be looked at then: "
            "leave one of them out."
        )
    grammar = next((field for field in _GRAMMARS if getattr(fields, field)), None)
    if fields.min_new_tokens and grammar:
        # Where the grammar admits the end alone, or a stop token, no token at all would be left to draw.
        raise RequestError(
            f"{name('min_new_tokens')} is {fields.min_new_tokens} and {name(grammar)} is set: a grammar that is at its "
            "end has no further token; say in the grammar how long the text is, or leave one of them out."
        )
    least, most = fields.min_new_tokens or 0, fields.max_new_tokens
    if most is not None and least > most:
        raise RequestError(
            f"{name('min_new_tokens')} is {least}, more than {name('max_new_tokens')}, which is {most}: send a minimum "
            "that is not above the maximum."
        )


def check_minimum(least: Any, name: str, stops: Mapping[str, Any]) -> None:
    """Refuse a minimum of tokens beside texts that end an answer: SGLang holds back ids that end it, and no texts.

    Args:
        least: the minimum, as it came.
        name: what the client calls it.
        stops: as they came, under `stop` and `stop_regex`. Stops that a chat template adds are not among them.

    Raises:
        RequestError: both are set.
    """
    for field in ("stop", "stop_regex"):
        if least and stops.get(field):
            raise RequestError(
                f"{name} is {shown(least)} and {field} is set, which would end the answer before: leave one of them "
                "out, or send stop_token_ids."
            )


_GRAMMARS = ("json_schema", "regex", "ebnf", "structural_tag")


def _unknown(key: str) -> str:
    if key in _OPENAI_NAMES:
        return f"sampling_params has {key!r}, which is OpenAI's name: here it is {_OPENAI_NAMES[key]!r}."
    if key.startswith("proxy_"):
        return f'sampling_params has {key!r}: it goes into custom_params, {{"custom_params": {{"{key}": ...}}}}.'
    return (
        f"sampling_params has {shown(key)}, which is no field that a request can set. Known are "
        f"{', '.join(SamplingFields.model_fields)}."
    )


_OPENAI_NAMES = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "min_tokens": "min_new_tokens",
    "seed": "sampling_seed",
}
