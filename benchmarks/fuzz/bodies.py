"""Hypothesis strategies for whole bodies: right ones of every generating route, with a few fields added or changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from benchmarks.fuzz import values
from benchmarks.fuzz.declared import bodies, is_declared, sampling_params
from benchmarks.fuzz.pictures import PLACE, picture_texts
from benchmarks.fuzz.values import EDGES, WORDS, Strategy, declared, rarely, some_fields

MAX_TOKENS, MAX_N = 32, 4
# A number this large is refused, or it is a fault; those between are honest work, and more than a fuzzer asks for.
ABSURD = 100_000
TOKEN_FIELDS = ("max_new_tokens", "max_tokens", "max_completion_tokens", "num_predict")
COUNT_FIELDS = ("n", "best_of")
# Where such fields stand.
CONTAINERS = ("sampling_params", "parameters", "options", "instances")

SCHEMAS = (
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"type": "string", "maxLength": 3},
    {"enum": [1, "b"]}, {"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"type": "nothing"}, {"pattern": "("}, {}, True,
    {"type": "object", "properties": {"child": {"$ref": "#"}}}, {"type": "number", "minimum": 5, "maximum": 1},
)  # fmt: skip
ODD_PLACES = (PLACE * 2, "<|image_pad|>", "<|video_pad|>", "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>")
schemas = rarely(EDGES, st.sampled_from(SCHEMAS))
words = rarely(st.sampled_from(values.EDGE_TEXTS), st.sampled_from(WORDS), of=4)
prompts = st.tuples(rarely(st.sampled_from((PLACE, *ODD_PLACES)), st.just(""), of=8), words).map("".join)
prompts_with_a_place = st.tuples(rarely(st.sampled_from(("", *ODD_PLACES)), st.just(PLACE), of=4), words).map("".join)
ids = rarely(
    st.lists(st.integers(0, 359) | st.sampled_from(values.EDGE_INTEGERS), max_size=6),
    st.lists(st.integers(0, 345), min_size=1, max_size=6), of=3,
)  # fmt: skip


@st.composite
def messages(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A conversation of one to four turns, with pictures, tools' results and an odd part now and then."""
    roles = ("user",) * 9 + ("assistant", "assistant", "system", "tool", "developer", "function", "nobody")
    turns = []
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3, 4)))):
        turn: dict[str, Any] = {"role": draw(st.sampled_from(roles)), "content": draw(contents())}
        if turn["role"] in ("assistant", "tool") and draw(st.booleans()):
            call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": draw(arguments)}}
            turn |= {"tool_call_id": "c1"} if turn["role"] == "tool" else {"tool_calls": [call]}
        turns.append(turn)
    return turns


arguments = rarely(EDGES, st.sampled_from(('{"d": 1}', '{"d": 1}', "{", "", "[]")))


def contents() -> Strategy:
    right = st.one_of(
        words.map(lambda text: {"type": "text", "text": text}),
        picture_texts().map(lambda text: {"type": "image_url", "image_url": {"url": text}}),
    )
    odd = st.one_of(
        st.tuples(picture_texts(), some_fields(image_url())).map(
            lambda both: {"type": "image_url", "image_url": {"url": both[0], **both[1]}}
        ),
        st.tuples(picture_texts(), EDGES).map(
            lambda both: {"type": "image_url", "image_url": both[0], "detail": both[1]}
        ),
        picture_texts().map(lambda text: {"type": "image", "image": text}),
        picture_texts().map(
            lambda text: {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": text}}
        ),
        EDGES,
    )
    return rarely(EDGES, prompts | st.lists(rarely(odd, right, of=6), max_size=3), of=20)


def image_url() -> type:
    chat = bodies()["POST", "/v1/chat/completions"]
    import sys

    return sys.modules[chat.__module__].ChatCompletionMessageContentImageURL


tools = st.lists(
    st.fixed_dictionaries({"type": st.just("function"), "function": st.fixed_dictionaries(
        {"name": st.sampled_from(("f", "f", "g", "", "a b")), "parameters": schemas})}),
    max_size=2,
)  # fmt: skip
formats = st.one_of(
    st.just({"type": "json_object"}),
    schemas.map(lambda schema: {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}),
)
sometimes = {"tools": rarely(EDGES, tools), "response_format": rarely(EDGES, formats), "stream": st.booleans()}
chat_like = st.fixed_dictionaries({"messages": messages()}, optional=sometimes)


@st.composite
def generate_body(draw: st.DrawFn) -> dict[str, Any]:
    """Of /generate: text or ids, alone or in a batch, with and without pictures."""
    kind = draw(st.sampled_from(("text", "text", "pictured", "pictured", "texts", "ids", "batch of ids")))
    match kind:
        case "text":
            body = {"text": draw(prompts)}
        case "pictured":
            body = {"text": draw(prompts_with_a_place), "image_data": draw(picture_texts())}
        case "texts":
            body = {"text": draw(st.lists(prompts, max_size=3))}
        case "ids":
            body = {"input_ids": draw(ids)}
        case _:
            body = {"input_ids": draw(st.lists(ids, max_size=3))}
    body["sampling_params"] = draw(some_fields(sampling_params()))
    if draw(st.integers(0, 7)) == 0:
        picture = picture_texts()
        body["image_data"] = draw(
            picture | st.lists(picture, max_size=3) | st.lists(st.lists(picture, max_size=2), max_size=2)
        )
    if draw(st.booleans()):
        body["stream"] = draw(st.booleans())
    return body


BASES: dict[str, Callable[[], Strategy]] = {
    "/generate": generate_body,
    "/v1/chat/completions": lambda: chat_like,
    "/invocations": lambda: chat_like,
    "/v1/completions": lambda: st.fixed_dictionaries(
        {"prompt": prompts | st.lists(prompts, max_size=3) | ids}, optional={"stream": st.booleans()}
    ),
    "/v1/messages": lambda: st.fixed_dictionaries({"model": st.just("m"), "messages": messages()}, optional=sometimes),
    "/v1/messages/count_tokens": lambda: st.fixed_dictionaries({"model": st.just("m"), "messages": messages()}),
    "/api/generate": lambda: st.fixed_dictionaries(
        {"model": st.just("m"), "prompt": prompts},
        optional={
            "stream": st.booleans(),
            "options": some_fields(sampling_params()) | EDGES,
            "images": st.lists(picture_texts(), max_size=2),
        },
    ),
    "/api/chat": lambda: st.fixed_dictionaries({"model": st.just("m"), "messages": messages()}),
    "/vertex_generate": lambda: st.fixed_dictionaries(
        {"instances": st.lists(generate_body(), max_size=2)}, optional={"parameters": some_fields(sampling_params())}
    ),
    "/tokenize": lambda: st.fixed_dictionaries({"prompt": prompts}) | chat_like,
    "/v1/tokenize": lambda: st.fixed_dictionaries({"prompt": prompts}) | chat_like,
    "/detokenize": lambda: st.fixed_dictionaries({"tokens": ids | st.lists(ids, max_size=2)}),
    "/v1/detokenize": lambda: st.fixed_dictionaries({"tokens": ids | st.lists(ids, max_size=2)}),
}
GENERATING = ("/generate", "/v1/chat/completions", "/v1/completions", "/v1/messages", "/api/generate",
              "/vertex_generate", "/invocations")  # fmt: skip


@st.composite
def bodies_of(draw: st.DrawFn, path: str, kind: Any) -> Any:
    """A body for a route: a right one and up to three fields of its class, some of them wrong; or something else.

    Args:
        path: the route.
        kind: its declared type, or None.
    """
    if draw(st.integers(0, 30)) == 0:
        return draw(EDGES)
    body = draw(BASES[path]()) if path in BASES else {}
    if is_declared(kind):
        body = draw(declared(kind)) | body if not body else body
        body |= draw(some_fields(kind))
    match draw(st.integers(0, 15)):
        case 0 if body:
            wrong = draw(st.sampled_from(sorted(body)))
            body = {name: draw(EDGES) if name == wrong else value for name, value in body.items()}
        case 1 if body:
            missing = draw(st.sampled_from(sorted(body)))
            body = {name: value for name, value in body.items() if name != missing}
        case 2:
            unknown = (
                st.sampled_from(("proxy_alpha", "extra_body", "metadata", "custom", "request_id", "lora", ""))
                | st.text()
            )
            body = body | {draw(unknown): draw(EDGES)}
    return bounded(path, body)


def bounded(path: str, body: Any) -> Any:
    """The body, asking for at most MAX_TOKENS tokens and MAX_N samples, unless it asks for something absurd."""
    if not isinstance(body, dict):
        return body
    body = copy.deepcopy(body)
    inner = "sampling_params" if path == "/generate" else "options" if path == "/api/generate" else None
    if path == "/vertex_generate":
        parameters = body.setdefault("parameters", {})
        if isinstance(parameters, dict):
            _bound(parameters.setdefault("sampling_params", {}), "max_new_tokens")
    elif inner:
        # Null stands for the defaults, 128 tokens among them.
        body[inner] = {} if body.get(inner) is None else body[inner]
        _bound(body[inner], "max_new_tokens" if inner == "sampling_params" else "num_predict")
    elif path in GENERATING:
        _bound(body, "max_tokens")
    for name in CONTAINERS:
        _bound(body.get(name), None)
    return body


def _bound(options: Any, required: str | None) -> None:
    for each in options if isinstance(options, list) else [options]:
        if not isinstance(each, dict):
            continue
        for name in TOKEN_FIELDS:
            # None is no limit, and zero was one in SGLang's chat.
            if name in each and (each[name] is None or _is_between(each[name], MAX_TOKENS)):
                each[name] = MAX_TOKENS
        if required and not any(name in each for name in TOKEN_FIELDS):
            each[required] = 8
        for name in COUNT_FIELDS:
            if name in each and _is_between(each[name], MAX_N):
                each[name] = MAX_N


def _is_between(value: Any, most: int) -> bool:
    return isinstance(value, int | float) and most < value < ABSURD
