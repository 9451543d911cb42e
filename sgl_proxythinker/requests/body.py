"""A JSON body, read once: what is refused before SGLang's own models see it, and what is put where they read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.pictures.part import check_image_entry, check_picture_settings
from sgl_proxythinker.policy.body_fields import BODIES, OLLAMA_OPTIONS, check_body
from sgl_proxythinker.policy.bounds import Bounds
from sgl_proxythinker.policy.generate_fields import MAX_LABEL_CHARS, check_body_fields, is_set
from sgl_proxythinker.policy.json_types import Scalars, check_types
from sgl_proxythinker.policy.sampling_fields import check_minimum, depth
from sgl_proxythinker.requests.admission import refuse_lost_trace
from sgl_proxythinker.requests.call import HttpCall
from sgl_proxythinker.requests.last_turn import check_last_turn
from sgl_proxythinker.requests.messages import check_messages, tell_errors
from sgl_proxythinker.requests.misplaced import check_places
from sgl_proxythinker.requests.model_name import read_model_name
from sgl_proxythinker.requests.tools import check_schemas, check_tool_forms, messages_body_as_chat
from sgl_proxythinker.sentences import shown

_IN_SAMPLING_PARAMS = '{"sampling_params": {"custom_params": {"proxy_alpha": 0.8}}}'
_IN_PARAMETERS = f'{{"parameters": {_IN_SAMPLING_PARAMS}}}'
_AT_THE_TOP = '{"custom_params": {"proxy_alpha": 0.8}}'

NATIVE = frozenset({"/generate", "/vertex_generate"})
# Where strengths are read: an example, and what their paths begin with.
_PLACES = {
    "/generate": (_IN_SAMPLING_PARAMS, "sampling_params"),
    "/vertex_generate": (_IN_PARAMETERS, "parameters.sampling_params"),
}
# What an instance of /vertex_generate is made of.
_OF_INSTANCES = ("text", "input_ids", "input_embeds", "image_data")
CHAT = frozenset({"/v1/chat/completions", "/invocations"})
OPENAI = CHAT | {"/v1/completions"}
# SGLang's own models of these bodies have no place for custom_params: they are read here.
FOREIGN = frozenset({"/v1/messages", "/api/generate"})
_ANTHROPIC = ("/v1/messages", "/v1/messages/count_tokens")
GENERATING = NATIVE | OPENAI | FOREIGN

# What bodies call fields of SGLang's, for sentences about them.
_OPENAI_NAMES = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "sampling_seed": "seed",
    "top_logprobs_num": "top_logprobs",
    "json_schema": "response_format",
    "structural_tag": "response_format",
    "text": "prompt",
}
_NAMES = {
    "/v1/completions": {"top_logprobs_num": "logprobs", "input_ids": "prompt", "json_schema": "json_schema"},
    "/v1/messages": {"stop": "stop_sequences"},
    "/api/generate": {"max_new_tokens": "options.num_predict"}
    | {
        name: f"options.{name}"
        for name in ("temperature", "top_k", "top_p", "stop", "presence_penalty", "frequency_penalty")
    },
}

# Bodies whose JSON is an object, beside those that generate.
_OBJECTS = frozenset(
    "/tokenize /v1/tokenize /detokenize /v1/detokenize /v1/messages/count_tokens /parse_function_call "
    "/separate_reasoning /abort_request".split()
)
_MAPPINGS = ("response_format", "chat_template_kwargs", "stream_options", "logit_bias", "options")
_STREAM_OPTIONS = dict.fromkeys(
    ("stream_options.include_usage", "stream_options.continuous_usage_stats"), frozenset([bool])
)
_NUMBER = frozenset([float])
_OF_A_NUMBER = 20  # characters
# That have bounds of their own, of bodies without a model.
_COUNTED = ("tokens", "tools", "messages", "system", "chat_template_kwargs")
# Of parts, by their types: where a picture is.
_PICTURE_FIELDS = {"image_url": "image_url", "image": "source"}
_FORMS = ("text", "json_object", "json_schema", "structural_tag")
_SCHEMA_FORM = '{"type": "json_schema", "json_schema": {"name": "...", "schema": {...}}}'
_SCHEMAS = ("response_format", "tools", "tool_choice", "chat_template_kwargs", "json_schema", "format")


@dataclass(frozen=True)
class Server:
    """What reading a body depends on."""

    config: ProxyConfig | None  # None: the base alone
    bounds: Bounds
    served_name: str
    labels: frozenset[str]  # of metrics, that the server's flags let clients set
    defaults: Mapping[str, Mapping[str, Any]]  # of each field that SGLang declares, by route
    scalars: Mapping[str, Mapping[str, Scalars]]  # types of the fields that hold scalars, by route


def read_body(route: str, body: Any, call: HttpCall, server: Server) -> Any:
    """Check a body, note in `call` what it says of guidance, and return it as SGLang is to read it.

    Args:
        route: as SGLang registers it.
        body: parsed JSON, changed in place.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    if route not in GENERATING and route not in _OBJECTS:
        return body
    if not isinstance(body, dict):
        raise RequestError(f"the body is {shown(body)}: send a JSON object.")
    if route in OPENAI:  # null is the default everywhere, and SGLang has fields that take none
        for field in [name for name, value in body.items() if value is None]:
            del body[field]
    _check_length_of_tools(body, server.bounds)
    call.speaks_openai = route in OPENAI or route in FOREIGN
    call.names = names_of(route)
    _check_shapes(body)
    for field in _SCHEMAS:
        if depth(body.get(field)) > server.bounds.limits.max_schema_depth + 4:  # of what stands around a schema
            raise RequestError(
                f"{field} has more than {server.bounds.limits.max_schema_depth} levels, which this server takes "
                "(--proxy-max-schema-depth)."
            )
    check_types(body, server.scalars.get(route, {}))
    if route in BODIES:
        check_body(body, BODIES[route], server.defaults[route], server.config is not None)
    if "messages" in body:
        check_messages(body["messages"], server.bounds, route in _ANTHROPIC)
        _check_text_of_prompt(body, server.bounds)
    if route in _ANTHROPIC:
        check_tool_forms(messages_body_as_chat(body))
        _check_system(body.get("system"))
        _check_contents(body.get("messages"))
        tell_errors(body.get("messages"))
    if body.get("continue_final_message"):
        check_last_turn(body)
    if route not in GENERATING:
        _check_text_tool(body, server.bounds)
        return body
    declared = server.defaults.get("/generate" if route in NATIVE else route, {})
    check_places(body, *_PLACES.get(route, (_AT_THE_TOP, "custom_params")), declared)
    check_picture_settings(body)
    call.model = read_model_name(body.get("model"), server.served_name)
    if route in FOREIGN:
        call.custom_params = body.pop("custom_params", None)
        refuse_lost_trace(call.custom_params, route)
    if route == "/generate":
        _check_native(body, server)
    if route == "/vertex_generate":
        _check_vertex(body, server)
    if route == "/api/generate":
        _check_options(body.get("options"), server)
    if route in OPENAI:
        _check_keys(body)
        _check_options_of_nothing(body)
        check_minimum(body.get("min_tokens"), "min_tokens", body)
        if body.get("echo") and body.get("logprobs") == 0 and body["logprobs"] is not False:
            raise RequestError(
                "echo is true and logprobs is 0: SGLang has logprobs of a prompt from 1 on; send 1, or leave one out."
            )
        if not (route in CHAT and body.get("return_meta_info") and not body.get("stream")):
            refuse_lost_trace(body.get("custom_params"), route)
    if route in CHAT:
        _prefer_completion_tokens(body)
    return body


def _check_length_of_tools(body: Mapping[str, Any], bounds: Bounds) -> None:
    """Before any of them is looked at: SGLang checks their schemas between the steps of all other requests."""
    if not body.get("tools"):
        return
    try:
        length = len(orjson.dumps(body["tools"]))
    except orjson.JSONEncodeError:
        raise RequestError("tools can't be read: send numbers of at most 64 bits.") from None
    if length > bounds.limits.max_schema_bytes:
        raise RequestError(
            f"tools are {length:,} bytes of JSON, and this server takes {bounds.limits.max_schema_bytes:,} "
            "(--proxy-max-schema-bytes raises it)."
        )
    check_schemas(body["tools"])


def names_of(route: str) -> Mapping[str, str]:
    """What a route's body calls fields of SGLang's `GenerateReqInput` and `SamplingParams`, where it differs."""
    return _OPENAI_NAMES | _NAMES.get(route, {}) if route in OPENAI or route in FOREIGN else {}


def _check_shapes(body: Mapping[str, Any]) -> None:
    """What SGLang's own validators take for objects before anybody has looked whether they are."""
    for field in _MAPPINGS:
        if not isinstance(body.get(field), (dict, type(None))):
            raise RequestError(f"{field} is {shown(body[field])}: send an object.")
    check_types(
        {f"stream_options.{name}": value for name, value in (body.get("stream_options") or {}).items()}, _STREAM_OPTIONS
    )
    bias = {f"logit_bias.{token}": value for token, value in (body.get("logit_bias") or {}).items()}
    check_types(bias, dict.fromkeys(bias, _NUMBER))
    form = body.get("response_format") or {}
    if form and form.get("type") not in _FORMS:
        raise RequestError(f"response_format.type is {shown(form.get('type'))}: known are {', '.join(_FORMS)}.")
    if form and body.get("json_schema") is not None:
        raise RequestError("json_schema and response_format are both set: send one of them.")
    for name in ("schema", "json_schema"):
        if not isinstance(form.get(name), (dict, type(None))):
            raise RequestError(f"response_format.{name} is {shown(form[name])}: send an object.")
        if form.get(name) is not None and form["type"] != "json_schema":
            raise RequestError(
                f"response_format has {name} and the type {shown(form['type'])}, which takes none: send {_SCHEMA_FORM}."
            )
    if form.get("type") == "json_schema" and form.get("schema") is None and form.get("json_schema") is None:
        raise RequestError(f"response_format has the type 'json_schema' and no schema: send {_SCHEMA_FORM}.")


def _prefer_completion_tokens(body: dict[str, Any]) -> None:
    """`max_completion_tokens: 0` means no tokens, as `max_tokens: 0` does: SGLang takes the first that is not 0."""
    most = body.get("max_completion_tokens")
    if most == 0 and not isinstance(most, bool):
        body["max_tokens"] = 0
        del body["max_completion_tokens"]


def _check_text_tool(body: Mapping[str, Any], bounds: Bounds) -> None:
    """Routes that run no model: their texts are as long as prompts, their ids are the tokenizer's."""
    if body.get("stream"):
        raise RequestError("stream is set, and this route answers at once: leave it out.")
    if (chars := _text_chars({name: body[name] for name in body if name not in _COUNTED})) > bounds.prompt_chars:
        raise RequestError(
            f"the body has {chars:,} characters of text, and this server takes {bounds.prompt_chars:,} "
            "(--proxy-max-prompt-chars raises it)."
        )
    tokens = body.get("tokens")
    if isinstance(tokens, list):
        count = sum(len(ids) if isinstance(ids, list) else 1 for ids in tokens)
        if count > bounds.prompt_chars:
            raise RequestError(
                f"tokens has {count:,} ids, and this server takes as many as characters, {bounds.prompt_chars:,} "
                "(--proxy-max-prompt-chars raises it)."
            )
    for ids in tokens if isinstance(tokens, list) and tokens and isinstance(tokens[0], list) else [tokens]:
        if isinstance(ids, list) and not all(type(token) is int and 0 <= token < bounds.known_ids for token in ids):
            wrong = next(token for token in ids if not (type(token) is int and 0 <= token < bounds.known_ids))
            raise RequestError(f"tokens has {shown(wrong)}: the tokenizer knows the ids 0 to {bounds.known_ids - 1}.")


def _check_text_of_prompt(body: Mapping[str, Any], bounds: Bounds) -> None:
    """All that a chat template may write: it is rendered and tokenized between the steps of all other requests."""
    chars = sum(_message_chars(message) for message in body["messages"])
    chars += sum(_text_chars(body.get(field)) for field in ("system", "chat_template_kwargs"))
    if chars > bounds.prompt_chars:
        raise RequestError(
            f"messages have {chars:,} characters with all that goes into their prompt, and this server takes "
            f"{bounds.prompt_chars:,} (--proxy-max-prompt-chars raises it)."
        )


def _message_chars(message: Mapping[str, Any]) -> int:
    """Of a message, or of a part that has parts (the result of a tool), without its pictures."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    chars = _text_chars({name: value for name, value in message.items() if name != "content" or not parts})
    for part in parts:
        if not isinstance(part, dict):
            chars += _text_chars(part)
        elif part.get("type") == "tool_result":
            chars += _message_chars(part)
        else:
            kind = part.get("type")
            left_out = _PICTURE_FIELDS.get(kind) if isinstance(kind, str) else None
            chars += _text_chars({name: value for name, value in part.items() if name != left_out})
    return chars


def _text_chars(value: Any) -> int:
    """Characters of all texts in a JSON value, names and numbers among them: templates write JSON too."""
    chars, rest = 0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            chars += len(item)
        elif isinstance(item, dict):
            chars += sum(map(len, item))
            rest.extend(item.values())
        elif isinstance(item, list):
            rest.extend(item)
        elif item is not None and not isinstance(item, bool):
            chars += _OF_A_NUMBER
    return chars


def _check_images(images: Any, where: str) -> None:
    if depth(images) > 4:  # prompts, images of a prompt, an object with a url
        raise RequestError(f"{where} is nested too deep: send a list of images for each prompt.")
    check_image_entry(images, where)


def _check_native(fields: dict[str, Any], server: Server) -> None:
    _check_images(fields.get("image_data"), "image_data")
    params = fields.get("sampling_params")
    if not isinstance(params, (dict, list, type(None))):
        raise RequestError(f"sampling_params is {shown(params)}: send an object, or a list of one for each prompt.")
    for one in params if isinstance(params, list) else [params]:
        if isinstance(one, dict):
            check_minimum(one.get("min_new_tokens"), "min_new_tokens", one)
    check_body_fields(fields, server.defaults["/generate"], server.labels, server.config is not None)


def _check_options(options: Any, server: Server) -> None:
    """Ollama's `options`: a mapping of which SGLang reads some names, and drops the others."""
    if options is not None:
        check_body(options, OLLAMA_OPTIONS, dict.fromkeys(options), server.config is not None)


def _check_system(system: Any) -> None:
    """Of Anthropic's `system` SGLang reads the texts, and drops every other part."""
    for number, part in enumerate(system if isinstance(system, list) else []):
        kind = part.get("type") if isinstance(part, dict) else part
        if kind != "text":
            raise RequestError(f"system[{number}].type is {shown(kind)}: send text; images go into a user's message.")


def _check_contents(messages: Any) -> None:
    """A message of Anthropic's form without parts is one that SGLang drops."""
    for number, message in enumerate(messages if isinstance(messages, list) else []):
        if isinstance(message, dict) and message.get("content") == []:
            raise RequestError(f"messages[{number}].content is an empty list: send a text, or at least one part.")


def _check_options_of_nothing(body: Mapping[str, Any]) -> None:
    if is_set(body.get("stream_options"), None) and not body.get("stream"):
        raise RequestError("stream_options is set and stream is not: set it to true, or leave stream_options out.")


def _check_keys(body: Mapping[str, Any]) -> None:
    """What divides the radix tree: texts, of which SGLang joins two."""
    for field in ("extra_key", "cache_salt"):
        value = body.get(field)
        if value is not None and (not isinstance(value, str) or len(value) > MAX_LABEL_CHARS // 2):
            raise RequestError(f"{field} is {shown(value)}: send a text of at most {MAX_LABEL_CHARS // 2} characters.")


def _check_vertex(body: Mapping[str, Any], server: Server) -> None:
    instances = body.get("instances")
    for number, instance in enumerate(instances if isinstance(instances, list) else []):
        if isinstance(instance, dict):
            _check_images(instance.get("image_data"), f"instances[{number}].image_data")
            given = [name for name, value in instance.items() if value is not None]
            if lost := next((name for name in given if name not in _OF_INSTANCES), None):
                raise RequestError(
                    f"instances[{number}] has {shown(lost)}, which is not read there: an instance has text or "
                    "input_ids, and image_data; everything else stands in parameters, for all of them."
                )
            if len(set(given) - {"image_data"}) > 1:
                raise RequestError(f"instances[{number}] has two prompts: send text or input_ids.")
    defaults = server.defaults["/generate"]
    if lost := sorted(name for name in body.keys() & defaults.keys() if is_set(body[name], defaults[name])):
        raise RequestError(f"{lost[0]} is not read at the top of this route's body: send it in parameters.")
    parameters = body.get("parameters")
    if parameters is None:
        return
    if not isinstance(parameters, dict):
        raise RequestError(f"parameters is {shown(parameters)}: send an object with fields of /generate.")
    if unknown := sorted(parameters.keys() - defaults.keys()):
        if unknown[0] == "custom_params":
            raise RequestError(f"parameters has custom_params: send {_IN_PARAMETERS}.")
        raise RequestError(f"parameters has {shown(unknown[0])}, which is no field of /generate.")
    if twice := sorted(parameters.keys() & set(_OF_INSTANCES)):
        raise RequestError(f"parameters has {twice[0]}: prompts and images stand in instances.")
    check_types(parameters, server.scalars["/generate"])
    _check_native(parameters, server)
