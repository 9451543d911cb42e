"""What a request for generation may hold: every field of SGLang's `GenerateReqInput`, who may set it, and its range.

The law is that of `arguments.py`: every field of SGLang 0.5.17's stands in exactly one of these tables. One that
stands in none is refused when it is set, which means: when it differs from its default.

    GenerateFields  works with three models, and is tested
    HARMLESS        can't change which token is produced
    REFUSED         knows one model only, was not tried with three, or belongs to SGLang's own processes
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
)

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guards.stop_regex import MAX_PATTERNS_IN_ALL
from sgl_proxythinker.policy.bounds import Bounds
from sgl_proxythinker.policy.sampling_fields import INT32_MAX, TokenId, _at_most, check_sampling_params
from sgl_proxythinker.sentences import sentence_of, shown

MAX_LABEL_CHARS = 512  # of a request id, a cache key, a label


class Refusal(NamedTuple):
    why: str  # a sentence
    fields: str
    even_plain: bool = True  # also where the base is served alone


REFUSED: tuple[Refusal, ...] = (
    Refusal(
        "Embeddings fit one model's width only; send text or input_ids.",
        "input_embeds positional_embed_overrides",
        False,
    ),
    Refusal("Videos have not been tried with three models; send images.", "video_data", False),
    Refusal("The models read no audio.", "audio_data use_audio_in_video", False),
    Refusal(
        "Sessions have not been tried with three models; send all turns, their prefix is cached.",
        "session_id session_params",
        False,
    ),
    Refusal("Hidden states would be the base's alone; ask a plain server for them.", "return_hidden_states", False),
    Refusal(
        "Expert routing is one model's; ask a plain server for it.",
        "return_routed_experts routed_experts_start_len",
        False,
    ),
    Refusal("Sparse attention's choices are one model's; ask a plain server for them.", "return_indexer_topk", False),
    Refusal("An adapter would change one model of three; merge it into a checkpoint.", "lora_path lora_id", False),
    Refusal("Multi-item scoring bypasses guidance; send one item a request.", "multi_item_delimiter_indices", False),
    Refusal(
        "It would run code of the client on the fused row, and is another way to steer; use custom_params.",
        "custom_logit_processor",
        False,
    ),
    Refusal(
        "It has not been tried with three models; leave it out.",
        "return_sampling_mask return_flat_raw_top_logprobs return_flat_raw_top_logprobs_b64 return_entropy "
        "require_reasoning max_thinking_tokens",
        False,
    ),
    Refusal(
        "Images are cut into patches as the server's --mm-process-config says, for all three models alike.",
        "max_dynamic_patch min_dynamic_patch image_max_dynamic_patch video_max_dynamic_patch images_config",
        False,
    ),
    Refusal(
        "The server computes it from the picture: one from outside would let a picture be answered from the cache of "
        "another one.",
        "mm_hashes",
    ),
    Refusal(
        "It belongs to SGLang's own processes, which set it themselves.",
        "bootstrap_host bootstrap_port bootstrap_room bootstrap_pair_key decode_tp_size routed_dp_rank "
        "disagg_prefill_dp_rank http_worker_ipc background received_time external_trace_header need_wait_for_mm_inputs "
        "num_items_assigned mm_data_mooncake encoder_urls return_bytes log_metrics conversation_id routing_key",
    ),
)

HARMLESS = frozenset("no_logs modalities return_prompt_token_ids return_text_in_logprobs".split())

# Set by SGLang's own code on the object, between a body and `TokenizerManager.generate_request`: on the object they are
# SGLang's, in a body of /generate they are a client's.
SET_BY_SGLANG = frozenset(
    "received_time external_trace_header routing_key log_metrics require_reasoning bootstrap_host bootstrap_room "
    "routed_dp_rank background custom_labels".split()
)


def _ids_or_batch(value: Any) -> str:
    return "many" if isinstance(value, list) and value and isinstance(value[0], list) else "one"


def _prompt(text: str, info: ValidationInfo[Bounds]) -> str:
    if not text:
        raise ValueError("an empty prompt has no token to go on from")
    if len(text) > (most := info.context.prompt_chars):
        raise ValueError(
            f"{len(text):,} characters are more than this server takes, {most:,} (--proxy-max-prompt-chars raises it)"
        )
    return text


def _ids(ids: Any, info: ValidationInfo[Bounds]) -> Any:
    """A prompt of ids, checked without making an object of each of a hundred thousand."""
    if not isinstance(ids, list):
        raise ValueError("it should be a list of token ids")
    if not ids:
        raise ValueError("an empty prompt has no token to go on from")
    if not all(type(token) is int for token in ids):
        wrong = next(token for token in ids if type(token) is not int)
        raise ValueError(f"{shown(wrong)} is no token id")
    known = info.context.known_ids
    if min(ids) < 0 or max(ids) >= known:
        wrong = next(token for token in ids if not 0 <= token < known)
        raise ValueError(f"it has {wrong}, and the tokenizer knows the ids 0 to {known - 1}")
    return ids


def _no_more_than_ids(number: int, info: ValidationInfo[Bounds]) -> int:
    if number > (known := info.context.known_ids):
        raise ValueError(f"the tokenizer knows {known} ids")
    return number


Label = Annotated[str, Field(max_length=MAX_LABEL_CHARS, pattern=r"^[^\x00-\x1f\x7f]*$")]
Prompt = Annotated[str, AfterValidator(_prompt)]
Ids = Annotated[Any, BeforeValidator(_ids)]
NamedIds = Annotated[list[TokenId], _at_most("max_logprobs", "ids")]

# A value for all prompts, or a list with one for each; one error, not one for each branch.
One = TypeVar("One")
OneOrMany = Annotated[
    Annotated[One, Tag("one")] | Annotated[list[One], Tag("many")],
    Discriminator(lambda value: "many" if isinstance(value, list) else "one"),
]


class GenerateFields(BaseModel):
    """The fields of a request that work; `Bounds` is the context of its validation."""

    model_config = ConfigDict(strict=True, extra="ignore")

    rid: OneOrMany[Annotated[Label, Field(min_length=1)]] | None = None
    text: OneOrMany[Prompt] | None = None
    input_ids: (
        Annotated[Annotated[Ids, Tag("one")] | Annotated[list[Ids], Tag("many")], Discriminator(_ids_or_batch)] | None
    ) = None
    image_data: Any = None  # read by `pictures`
    sampling_params: Any = None  # read by `sampling_fields`
    return_logprob: OneOrMany[bool | None] | None = None
    logprob_start_len: OneOrMany[Annotated[int, Field(ge=-1, le=INT32_MAX)] | None] | None = None
    top_logprobs_num: (
        OneOrMany[
            Annotated[
                int, Field(ge=0), AfterValidator(_no_more_than_ids), _at_most("max_logprobs", "logprobs of a token")
            ]
            | None
        ]
        | None
    ) = None
    token_ids_logprob: (
        Annotated[
            Annotated[NamedIds, Tag("one")] | Annotated[list[NamedIds | None], Tag("many")],
            Discriminator(
                lambda value: "many" if isinstance(value, list) and any(isinstance(i, list) for i in value) else "one"
            ),
        ]
        | None
    ) = None
    stream: bool | None = None
    priority: Annotated[int, Field(ge=-INT32_MAX, le=INT32_MAX)] | None = None
    extra_key: OneOrMany[Label | None] | None = None
    custom_labels: dict[Label, Label] | None = None
    no_logs: bool | None = None
    modalities: list[Literal["image", "multi-images"] | None] | None = None
    return_prompt_token_ids: bool | None = None
    return_text_in_logprobs: bool | None = None


_NEW_TOKENS = 128  # of an answer for which nothing is said
_PER_PROMPT = "sampling_params return_logprob logprob_start_len top_logprobs_num extra_key rid".split()
_REASONS = {field: refusal for refusal in REFUSED for field in refusal.fields.split()}


def check_body_fields(body: dict[str, Any], defaults: Mapping[str, Any], labels: frozenset[str], guided: bool) -> None:
    """Refuse fields of a /generate body that are not for clients.

    Args:
        body: as it came; names that SGLang doesn't declare are ignored. Fields that are refused when set, and are not,
            leave it: SGLang reads an empty list as something other than nothing.
        defaults: of every field that SGLang declares.
        labels: names of metric labels that the server's flags allow.
        guided: the server has proxies.

    Raises:
        RequestError: names the field and the reason.
    """
    for field in body.keys() & defaults.keys():
        if is_set(body[field], defaults[field]):
            _refuse(field, guided)
        elif field in _REASONS:
            del body[field]
    given = body.get("custom_labels")
    if isinstance(given, Mapping) and (unknown := [label for label in given if label not in labels]):
        raise RequestError(
            f"custom_labels names {shown(unknown[0])}, and the server was started to take "
            f"{', '.join(sorted(labels)) or 'none'} (--tokenizer-metrics-allowed-custom-labels)."
        )


def check_request(obj: Any, bounds: Bounds, guided: bool, name: Callable[[str], str] = str) -> None:
    """Refuse a request that SGLang's processes could not read, or would read as something else.

    Args:
        obj: SGLang's `GenerateReqInput` before it is normalised, of any route or of the offline engine. What is refused
            when set, and is empty, becomes its default.
        bounds: the server's.
        guided: the server has proxies.
        name: what the client calls a field of SGLang's.

    Raises:
        RequestError: names the field, what came and what is wanted.
    """
    kind: type = type(obj)
    defaults = _defaults_of(kind)
    values = {field: getattr(obj, field) for field in defaults}
    for field, default in defaults.items():
        if values[field] is default or field in SET_BY_SGLANG:
            continue
        if is_set(values[field], default):
            _refuse(field, guided)
        elif field in _REASONS:
            setattr(obj, field, default)
    if not _is_given(values["text"]) and not _is_given(values["input_ids"]):
        raise RequestError("the request has no prompt: send text or input_ids.")
    if values["text"] is not None and values["input_ids"] is not None:
        raise RequestError("the request has text and input_ids, and only one of them can be the prompt: leave one out.")
    try:
        GenerateFields.model_validate(values, context=bounds)
    except ValidationError as error:
        errors = [{**item, "loc": (name(str(item["loc"][0])), *_untagged(item["loc"][1:]))} for item in error.errors()]
        raise RequestError(sentence_of(errors)) from None
    params = values["sampling_params"]
    _check_number_of_patterns(values)
    for one in params if isinstance(params, list) else [params]:
        check_sampling_params(one, bounds, name)
    if values["priority"] is not None and not bounds.has_priorities:
        raise RequestError("priority can't be obeyed: the server was started without --enable-priority-scheduling.")
    _check_batch(values, bounds, name)
    if (logprobs := _most_logprobs(values, bounds)) > bounds.limits.max_logprobs_in_all:
        raise RequestError(
            f"the request may get {logprobs:,} logprobs, and this server takes {bounds.limits.max_logprobs_in_all:,} "
            f"(--proxy-max-logprobs-in-all raises it): ask for fewer of each token, set {name('max_new_tokens')}, or "
            "send fewer prompts at once."
        )


def prompts_of(text: Any, input_ids: Any) -> int | None:
    """How many prompts a request has; None for one that is no list."""
    if text is not None:
        return len(text) if isinstance(text, list) else None
    return len(input_ids) if _ids_or_batch(input_ids) == "many" else None


def is_set(value: Any, default: Any) -> bool:
    """Whether a client asked for something: routers and clients send defaults, and empty containers, for nothing."""
    if value is None or (isinstance(value, (list, dict, str)) and not value):
        return False
    if isinstance(value, list) and all(item is None or item is False for item in value):
        return False
    return type(value) is not type(default) or value != default


@cache
def _defaults_of(kind: type) -> Mapping[str, Any]:
    return {field.name: default_of(field) for field in dataclasses.fields(kind)}


def default_of(field: dataclasses.Field) -> Any:
    """A dataclass field's default; None where there is none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _refuse(field: str, guided: bool) -> None:
    if field in GenerateFields.model_fields or field in HARMLESS:
        return
    refusal = _REASONS.get(field)
    if refusal is None:
        raise RequestError(f"{field} can't be used here. It is not classified: nobody has looked at what it does.")
    if guided or refusal.even_plain:
        where = "on a guided server" if not refusal.even_plain else "in a request"
        raise RequestError(f"{field} can't be used {where}. {refusal.why}")


def _most_logprobs(values: Mapping[str, Any], bounds: Bounds) -> int:
    """How many logprobs a request may get at most; SGLang keeps all of them, of 150 bytes each, until it has ended."""
    prompts = prompts_of(values["text"], values["input_ids"])
    total = 0
    for place in range(prompts or 1):
        asks, top, start = (
            value[place] if isinstance(value := values[field], list) else value
            for field in ("return_logprob", "top_logprobs_num", "logprob_start_len")
        )
        if not asks:
            continue
        ids, params = values["token_ids_logprob"] or [], values["sampling_params"] or {}
        ids = ids[place] or [] if ids and isinstance(ids[0], (list, type(None))) else ids
        params = (params[place] or {}) if isinstance(params, list) else params
        most = params.get("max_new_tokens", _NEW_TOKENS)
        tokens = bounds.context_length if most is None else min(most, bounds.context_length)
        tokens *= params.get("n") or 1
        if start is not None and start >= 0:
            given = values["text"] if values["text"] is not None else values["input_ids"]
            prompt = given if prompts is None else given[place]
            tokens += min(len(prompt), bounds.context_length)  # a token of a text has a character at least
        total += tokens * (1 + (top or 0) + len(ids))
    return total


def _check_number_of_patterns(values: Mapping[str, Any]) -> None:
    """Before the first of them is built."""
    params = values["sampling_params"]
    prompts = prompts_of(values["text"], values["input_ids"]) or 1
    each = params if isinstance(params, list) else [params] * prompts
    count = sum(_patterns(one) for one in each if isinstance(one, dict))
    if count > MAX_PATTERNS_IN_ALL:
        raise RequestError(
            f"the prompts and samples of this request have {count:,} patterns of stop_regex, and {MAX_PATTERNS_IN_ALL} "
            "are the most that are taken: send fewer at once."
        )


def _patterns(params: Mapping[str, Any]) -> int:
    """Of all samples of a prompt."""
    given, samples = params.get("stop_regex"), params.get("n")
    count = len(given) if isinstance(given, list) else given is not None
    return count * (samples if type(samples) is int and samples > 1 else 1)


def _check_batch(values: Mapping[str, Any], bounds: Bounds, name: Callable[[str], str]) -> None:
    """Lists have one value for each prompt, and a request asks for no more answers than the server takes."""
    prompts = prompts_of(values["text"], values["input_ids"])
    params = values["sampling_params"]
    first = params[0] if isinstance(params, list) and params else params
    samples = (first or {}).get("n") or 1 if not isinstance(params, list) or params else 1
    answers = (prompts or 1) * samples
    if answers > bounds.limits.max_batch:
        raise RequestError(
            f"the request asks for {answers:,} answers, {prompts or 1:,} prompts with {samples:,} samples each, and "
            f"this server takes {bounds.limits.max_batch:,} at once (--proxy-max-batch raises it)."
        )
    for field in _PER_PROMPT:
        value = values[field]
        if isinstance(value, list) and prompts is None:
            raise RequestError(f"{name(field)} is a list and the request has one prompt: send one value.")
        if isinstance(value, list) and len(value) != prompts:
            raise RequestError(f"{name(field)} has {len(value)} values and the request {prompts} prompts.")
    images = values["image_data"]
    if prompts is not None and isinstance(images, list) and len(images) not in (0, prompts):
        raise RequestError(
            f"image_data has {len(images)} entries and the request {prompts} prompts: send one for each, a list of its "
            "images, or null."
        )
    several = values["token_ids_logprob"]
    if isinstance(several, list) and any(isinstance(item, list) for item in several) and len(several) != (prompts or 0):
        raise RequestError(
            f"token_ids_logprob has {len(several)} lists and the request {prompts or 1} prompts: send one list of ids "
            "for all, or one for each."
        )
    asks = values["return_logprob"]
    asks = any(asks) if isinstance(asks, list) else bool(asks)
    starts = values["logprob_start_len"]
    if not asks and any(start not in (None, -1) for start in (starts if isinstance(starts, list) else [starts])):
        raise RequestError("logprob_start_len is set and return_logprob is not: set it to true, or leave it out.")
    for field in ("top_logprobs_num", "token_ids_logprob"):
        if not asks and is_set(values[field], None) and values[field] not in (0, [0] * (prompts or 1)):
            switch = "logprobs" if name(field) != field else "return_logprob"
            raise RequestError(f"{name(field)} is set and {switch} is not: set it to true, or leave {name(field)} out.")


def _is_given(value: Any) -> bool:
    return value is not None and value != [[]] and (value != [] or isinstance(value, str))


def _untagged(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(part for part in loc if part not in ("one", "many"))
