"""Hypothesis strategies for requests: bodies by SGLang's classes, by its OpenAPI description, and by neither."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode

from benchmarks.fuzz.bodies import BASES, GENERATING, bodies_of, bounded
from benchmarks.fuzz.declared import bodies
from benchmarks.fuzz.exchange import Request
from benchmarks.fuzz.values import EDGE_TEXTS, nested, rarely

# Pages for people.
QUIET = ("/docs", "/docs/oauth2-redirect", "/redoc")
RAW_BODIES = (
    b"", b"{", b"[]", b"5", b"null", b'"x"', b"true", b"nul", b"\xff\xfe", b"a=1&b=2", b"{}{}", b'{"a":1,"a":2}',
    b'{"text":"\xff"}', json.dumps(nested(900)).encode(), b"[" * 100_000, b'{"a":' * 3_000, b" " * 1000 + b"{}",
    b'{"text":"Hi","sampling_params":{"max_new_tokens":8,"temperature":1e999}}',
    b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_tokens":1e1}',
    b'{"text":"Hi","sampling_params":{"max_new_tokens":8},"sampling_params":{"max_new_tokens":4}}',
)  # fmt: skip
ODD_HEADERS = (
    {"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data"}, {"Content-Encoding": "gzip"},
    {"x-body-compressed": "zstd"}, {"x-body-compressed": "nothing"}, {"x-custom-labels": '{"a":"b"}'},
    {"x-custom-labels": "["}, {"x-data-parallel-rank": "1"}, {"x-data-parallel-rank": "a"}, {"x-smg-routing-key": "a"},
    {"x-override-priority": "a"}, {"x-override-rid": "job"}, {"Accept": "text/event-stream"},
    {"traceparent": "00-"}, {"Transfer-Encoding": "x"}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"},
    {"Range": "bytes=0-1"},    {"Expect": "200-ok"}, {"Host": ""},
)  # fmt: skip

headers = rarely(st.sampled_from(ODD_HEADERS), st.just({}))
leaving = rarely(st.integers(0, 3), st.none(), of=8)


def by_classes(without: frozenset[str] = frozenset()) -> st.SearchStrategy[Request]:
    """Requests to any route with bodies of its class; four of five to those that generate.

    Args:
        without: names of fields that are never sent, to look past a fault that is known.
    """
    known = bodies()
    everything = [(method, path) for method, path in known if path not in QUIET]
    generating = [(method, path) for method, path in everything if path in GENERATING]
    others = [(method, path) for method, path in everything if path in BASES and path not in GENERATING]
    routes = st.one_of(*[st.sampled_from(generating)] * 6, st.sampled_from(others), st.sampled_from(everything))

    def request(route: tuple[str, str]) -> st.SearchStrategy[Request]:
        method, path = route
        kind = known[route]
        body = st.none() if kind is None else bodies_of(path, kind)
        name = st.sampled_from(EDGE_TEXTS).map(quoted)
        paths = name.map(lambda name: re.sub("{.*?}", name, path)) if "{" in path else st.just(path)
        return st.builds(partial(_request, method, without), paths, body, headers, leaving)

    return routes.flatmap(request)


def _request(method: str, without: frozenset[str], path: str, body: Any, headers: dict, leave: int | None) -> Request:
    if body is None:
        return Request(method, path, None, headers, leave)
    body = bounded(path, leave_out(body, without))
    return Request.of_json(method, path, body, headers=headers, leave_after=leave)


def quoted(text: str) -> str:
    return quote(text.encode(errors="replace"), safe="")


def leave_out(body: Any, names: frozenset[str]) -> Any:
    """The body without the members of these names, at any depth."""
    if not names:
        return body
    if isinstance(body, dict):
        return {name: leave_out(value, names) for name, value in body.items() if name not in names}
    return [leave_out(value, names) for value in body] if isinstance(body, list) else body


def raw() -> st.SearchStrategy[Request]:
    """Bodies that are no JSON, or JSON as no client writes it."""
    paths = st.sampled_from([(method, path) for (method, path), kind in bodies().items() if kind is not None])
    typed = st.just({"Content-Type": "application/json"})
    data = st.sampled_from(RAW_BODIES) | st.binary(max_size=30)
    return st.builds(
        lambda route, data, more, headers: Request(*route, data, {**headers, **more}), paths, data, headers, typed
    )


def by_description(url: str, without: frozenset[str] = frozenset()) -> st.SearchStrategy[Request]:
    """Requests that schemathesis makes of the server's OpenAPI description, both right and wrong by it."""
    schema = schemathesis.openapi.from_dict(requests.get(f"{url}/openapi.json", timeout=60).json())
    operations = [result.ok() for result in schema.get_all_operations()]
    strategies = [
        operation.as_strategy(mode)
        for operation in operations
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        if mode is GenerationMode.POSITIVE or operation.body or operation.query or operation.path_parameters
    ]
    return st.sampled_from(strategies).flatmap(lambda strategy: strategy).map(lambda case: of_case(case, without))


def of_case(case: schemathesis.Case, without: frozenset[str] = frozenset()) -> Request:
    """The request of a case of schemathesis, bounded as ours are."""
    path = case.path
    for name, value in (case.path_parameters or {}).items():
        path = path.replace(f"{{{name}}}", quoted(str(value)))
    query = {name: value for name, value in (case.query or {}).items() if name not in without}
    if query:
        path += "?" + urlencode(query, doseq=True, errors="replace")
    method, body = case.method.upper(), case.body
    if type(body).__name__ == "NotSet":
        return Request(method, path)
    if isinstance(body, bytes):
        return Request(method, path, body, {"Content-Type": case.media_type or "application/json"})
    try:
        return Request.of_json(method, path, bounded(case.path, leave_out(body, without)))
    except TypeError:  # parts of a form
        return Request(method, path, repr(body).encode(), {"Content-Type": case.media_type or "text/plain"})
