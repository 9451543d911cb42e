"""`docs/matrix.md`: which field is read on which route, found by asking the code that decides it.

python -m sgl_proxythinker.frontend.matrix_page > docs/matrix.md

Wishes for guidance are sent, one by one, through the functions that read a body, admit a request and write the header;
fields of SGLang's are looked up in the tables of `policy/`.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.frontend.proxy_gen import proxy_gen
from sgl_proxythinker.guidance import ALPHA, EXPERT_NAME, KNOWN_KEYS, Guidance, read_guidance
from sgl_proxythinker.http.guidance_header import guidance_header
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.policy import generate_fields, routes
from sgl_proxythinker.policy.body_fields import BODIES, OLLAMA_OPTIONS, Body
from sgl_proxythinker.policy.bounds import Bounds
from sgl_proxythinker.policy.generate_fields import GenerateFields
from sgl_proxythinker.policy.sampling_fields import SamplingFields
from sgl_proxythinker.requests.admission import admit_request
from sgl_proxythinker.requests.body import Server, names_of, read_body
from sgl_proxythinker.requests.call import HttpCall
from sgl_proxythinker.upstream.frontend_language import gen

_HEAD = """# Routes and fields

Written by the code that decides it (`python -m sgl_proxythinker.frontend.matrix_page > docs/matrix.md`), and a test
compares the two. Ranges are in [requests.md](requests.md), rules of each route in [fields.md](fields.md), reasons of
refusals in [refusals.md](refusals.md).

- `yes`: it is read, and acts. A name: the same under this name.
- `refused`: a 400 with one sentence. SGLang has such a field, or a wish would be lost.
- `no`: there is no place for it.
- `-`: SGLang declares no such field for the route. It is ignored at the top of a body and refused inside
  `sampling_params` and `options`.

`/api/chat` is refused as a whole.
"""
_GUIDANCE = """## Guidance
A body has these in its `custom_params`: those of `/generate` and of the `Engine` stand in `sampling_params`, those of
`/vertex_generate` in `parameters.sampling_params`, and those of the other routes at the top. `proxy_gen` has arguments
of these names without `proxy_`. *Model's name* is what `model` carries on each of these routes. *Header* is the
answer's `proxy-guidance`; `meta_info` says the same, and the trace.
"""
_SAMPLING = """## Sampling
Fields of `sampling_params` on `/generate`, `/vertex_generate` and in the `Engine`; `proxy_gen` takes those of
`sgl.gen`.
"""
_OTHERS = """## Prompt, pictures, streams and logprobs
Fields at the top of `/generate` (of `/vertex_generate`: in an instance or in `parameters`), and what they are
elsewhere.
"""
_REFUSED = """## Refused
Fields that a guided server takes on no route, or not on every route that has them. Those that are refused on the same
routes share a row. `limited`: some values pass (`thinking` without a budget).
"""

# A wish for each field, which no server has by default.
_WISHES: dict[str, Any] = {
    "proxy_alpha": 0.8,
    "proxy_amateur_alpha": 0.2,
    "proxy_expert": "math",
    "proxy_experts": {"expert": 0.4, "math": 0.3},
    "proxy_law": {"kind": "entropy", "above": 0.7},
    "proxy_clip": 8.0,
    "proxy_plausible": 0.1,
    "proxy_trace": True,
}
_IN_A_NAME = {ALPHA: "NAME@0.8", EXPERT_NAME: "NAME+math"}

_CONFIG = ProxyConfig.model_validate(
    {"expert_path": "e", "amateur_path": "a", "experts": {"math": {"path": "m"}}, "speculate": "off"}
)
_PROMPTS: dict[str, dict[str, Any]] = {
    "/generate": {"text": "Hi"},
    "/vertex_generate": {"instances": [{"text": "Hi"}]},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/invocations": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8},
    "/api/generate": {"prompt": "Hi"},
}
_COLUMNS = (
    ("/generate", "/vertex_generate"),
    ("/v1/chat/completions", "/invocations"),
    ("/v1/completions",),
    ("/v1/messages",),
    ("/api/generate",),
)
_OF_GENERATE = {"/generate", "/vertex_generate"}
_TOLD = {"return_meta_info": True}

# What other bodies call a field of /generate, beside the names that errors use.
_ALSO = {"text": ("messages",), "image_data": ("messages", "images"), "return_logprob": ("logprobs",)}
_OTHER_FIELDS = (
    "text input_ids image_data stream return_logprob top_logprobs_num token_ids_logprob logprob_start_len "
    "rid extra_key priority custom_labels"
).split()


def page() -> str:
    """The whole page, in Markdown."""
    routes_head = [" ".join(f"`{route}`" for route in column) for column in _COLUMNS]
    guidance_head = ["", *routes_head, "`/api/chat`", "`Engine`", "`proxy_gen`", "model's name", "header"]
    return "\n".join(
        [
            _HEAD,
            _GUIDANCE,
            _table(guidance_head, ([f"`{name}`", *_guidance_cells(name)] for name in KNOWN_KEYS)),
            _SAMPLING,
            _table(
                ["", *routes_head, "`proxy_gen`"],
                ([f"`{name}`", *_field_cells(name), _of_gen(name)] for name in _sampling_fields()),
            ),
            _OTHERS,
            _table(["", *routes_head], ([f"`{name}`", *_field_cells(name)] for name in _OTHER_FIELDS)),
            _REFUSED,
            _table(["", *routes_head], _refused_rows()),
        ]
    )


def _guidance_cells(name: str) -> Iterator[str]:
    for column in _COLUMNS:
        yield _one_of(_on_route(route, name) for route in column)
    yield "no" if routes.refusal("/api/chat") is None else "refused"
    yield _said(lambda: _admitted(SimpleNamespace(**_PROMPTS["/generate"]), _wish(name), None), name)
    yield _in_proxy_gen(name)
    yield _in_a_name(name)
    yield "yes" if name in json.loads(guidance_header([_wanted(name)])) else "no"


def _wish(name: str) -> dict[str, Any]:
    return {name: _WISHES[name]}


def _wanted(name: str) -> Guidance:
    return read_guidance(_wish(name), _CONFIG.defaults, _CONFIG.pairs)


def _said(ask: Callable[[], Guidance], name: str) -> str:
    """What becomes of a wish: it is the guidance of the request, or an error, or it is lost."""
    try:
        return "yes" if ask() == _wanted(name) != _CONFIG.guidance else "no"
    except RequestError:
        return "refused"


def _on_route(route: str, name: str) -> str:
    asked = _said(lambda: _asked(route, _wish(name)), name)
    if asked == "yes" or _said(lambda: _asked(route, _wish(name), _TOLD), name) != "yes":
        return asked
    streamed = _said(lambda: _asked(route, _wish(name), {**_TOLD, "stream": True}), name)
    return "with `return_meta_info`" if streamed == "yes" else "with `return_meta_info`, not streamed"


def _asked(route: str, custom_params: dict[str, Any] | None, more: Mapping[str, Any] | None = None) -> Guidance:
    """The guidance of a request that comes over HTTP."""
    body = {**_PROMPTS[route], **(more or {})}
    own = {} if custom_params is None else {"custom_params": dict(custom_params)}
    if route == "/generate":
        body["sampling_params"] = own
    elif route == "/vertex_generate":
        body["parameters"] = {"sampling_params": own}
    else:
        body |= own
    call = HttpCall(route)
    body = read_body(route, body, call, _SERVER)
    # As SGLang's handlers make a request of it.
    if route == "/vertex_generate":
        given = {**body["instances"][0], **body["parameters"]}
    elif route == "/generate":
        given = body
    else:
        given = {"text": "Hi", "sampling_params": {"custom_params": body.get("custom_params")}}
    return _admitted(SimpleNamespace(**given), given["sampling_params"].get("custom_params"), call)


def _admitted(request: SimpleNamespace, custom_params: dict[str, Any] | None, call: HttpCall | None) -> Guidance:
    sent = SimpleNamespace(
        rid=None, text=request.text, input_ids=None, sampling_params={"custom_params": custom_params}
    )
    [guidance] = admit_request(sent, _CONFIG, call, live=(), starting=False)
    return guidance


def _in_proxy_gen(name: str) -> str:
    argument = name.removeprefix("proxy_")
    if argument not in inspect.signature(proxy_gen).parameters:
        return "no"
    carried = proxy_gen("answer", **{argument: _WISHES[name]}).sampling_params.dtype.params
    return _said(lambda: read_guidance(carried, _CONFIG.defaults, _CONFIG.pairs), name)


def _in_a_name(name: str) -> str:
    if name not in _IN_A_NAME:
        return "no"
    model = {"model": _IN_A_NAME[name]}
    said = _one_of(_said(partial(_asked, route, None, model), name) for route in _PROMPTS)
    return f"`{_IN_A_NAME[name]}`" if said == "yes" else said


def _sampling_fields() -> list[str]:
    return [name for name in SamplingFields.model_fields if name != "custom_params"]


def _field_cells(name: str) -> Iterator[str]:
    for column in _COLUMNS:
        yield _one_of(_field_on(route, name) for route in column)


def _field_on(route: str, name: str) -> str:
    if route in _OF_GENERATE:
        return "refused" if name in _REFUSED_OF_GENERATE else "yes" if name in _KNOWN_OF_GENERATE else "-"
    told = names_of(route).get(name, name)
    for other in dict.fromkeys((told, name, *_ALSO.get(name, ()))):
        body, field = _body_of(route, other)
        if body.is_classified(field):
            return _verdict(body, field, "yes" if other == name else f"`{other}`")
    return "-"


def _body_of(route: str, name: str) -> tuple[Body, str]:
    """The tables that have a field, which may stand in Ollama's `options`."""
    in_options = route == "/api/generate" and not BODIES[route].is_classified(name)
    return (OLLAMA_OPTIONS, name.removeprefix("options.")) if in_options else (BODIES[route], name)


def _verdict(body: Body, field: str, taken: str) -> str:
    refusal = body.refusal(field)
    if refusal is None:
        return taken
    return "limited" if any(isinstance(value, dict) for value in refusal.allowed) else "refused"


def _of_gen(name: str) -> str:
    names = inspect.signature(gen).parameters
    told = names_of("/v1/chat/completions").get(name, name)
    return "yes" if name in names else f"`{told}`" if told in names else "-"


def _refused_rows() -> Iterator[list[str]]:
    """Of every field that a route of generation refuses; those of one answer together."""
    bodies = [BODIES[route] for column in _COLUMNS for route in column if route in BODIES]
    fields = dict.fromkeys((*_REFUSED_OF_GENERATE, *(field for body in bodies for field in body.refusals)))
    fields |= dict.fromkeys(f"options.{field}" for field in OLLAMA_OPTIONS.refusals)
    rows: dict[tuple[str, ...], list[str]] = {}
    for field in fields:
        rows.setdefault(tuple(_field_cells(field)), []).append(field)
    for cells, names in rows.items():
        yield [" ".join(f"`{name}`" for name in names), *cells]


def _one_of(cells: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(cells))


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


_REFUSED_OF_GENERATE = [field for refusal in generate_fields.REFUSED for field in refusal.fields.split()]
_KNOWN_OF_GENERATE = {*GenerateFields.model_fields, *SamplingFields.model_fields, *generate_fields.HARMLESS}
_SERVER = Server(
    _CONFIG,
    Bounds(Limits(), known_ids=1000, context_length=4096),
    served_name="NAME",
    labels=frozenset(),
    defaults={
        "/generate": dict.fromkeys((*GenerateFields.model_fields, *generate_fields.HARMLESS, *_REFUSED_OF_GENERATE)),
        **{route: dict.fromkeys((*body.taken, *body.refusals)) for route, body in BODIES.items()},
    },
    scalars={"/generate": {}},
)


if __name__ == "__main__":
    sys.stdout.write(page())
