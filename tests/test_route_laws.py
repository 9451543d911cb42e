"""However a path is spelled: what answers is a route that is classified as open, and every open route answers.

The application is one of FastAPI's with SGLang's routes, of which two routers are included as SGLang includes them;
`test_classification.py` compares the tables with its application. The guards are those of a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import PlainTextResponse
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sgl_proxythinker.http.application import guard_routes
from sgl_proxythinker.http.middleware import HonestAnswers
from sgl_proxythinker.policy import routes
from sgl_proxythinker.policy.routes import ADMIN, classify
from sgl_proxythinker.policy.server_arguments import Verdict

OPEN = [route for table in (routes.WORKS, routes.IRRELEVANT) for group in table.values() for route in group.split()]
REFUSED = [route for refused in routes.REFUSED for route in refused.routes.split()]
# Of another release.
UNKNOWN = ["/added_in_the_next_release", "/v2/{name}", "/v2/{name}/more", "/files/{rest:path}", "/v1/new"]
INCLUDED = ["/v1/loads", "/scale_elastic_ep", "/is_scaling_elastic_ep", "/v1/new"]
TEMPLATES = [*OPEN, *REFUSED, *UNKNOWN]
METHODS = ["GET", "POST"]


def application(is_guided: bool) -> FastAPI:
    """Every route answers with its own template."""
    app, included = FastAPI(docs_url=None, redoc_url=None, openapi_url=None), APIRouter()
    for template in TEMPLATES:
        owner = included if template in INCLUDED else app
        owner.add_api_route(template, answering(template), methods=METHODS)
    app.include_router(included)
    guard_routes(app, None, is_guided=is_guided)
    app.add_middleware(HonestAnswers, max_body_mib=1, max_body_values=1000)
    return app


def answering(template: str):
    async def answer() -> PlainTextResponse:
        return PlainTextResponse(template)

    return answer


GUIDED, PLAIN = application(True), application(False)


def reached(app: FastAPI, path: str, method: str = "GET", root_path: str = "") -> str | None:
    """The template of the route that answers; None where none does."""
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(errors="replace"), "query_string": b"",
        "headers": [], "root_path": root_path, "http_version": "1.1", "scheme": "http", "server": ("x", 1),
    }  # fmt: skip
    sent = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    if sent[0]["status"] != 200:
        return None
    return b"".join(message.get("body", b"") for message in sent[1:]).decode()


def may_answer(template: str, is_guided: bool) -> bool:
    if template in ADMIN:
        return False  # without its key
    return not is_guided or classify(template) in (Verdict.WORKS, Verdict.IRRELEVANT)


SEGMENT = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=5)
BEHIND = st.sampled_from(
    ["", "\n", "\r", "\r\n", "/", "//", " ", "\x00", "\u2028", "?", "#", ".", "/..", "%0A", ";a=b"]
)
BEFORE = st.sampled_from(["", "", "/", "/.", "//", "/v1", " ", "\n", "."])


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """The path of a route, and what is like it."""
    template = draw(st.sampled_from(TEMPLATES))
    parts = [draw(SEGMENT) if part.startswith("{") else part for part in template.split("/")]
    path = draw(BEFORE) + "/".join(parts) + draw(BEHIND)
    place = draw(st.integers(0, len(path)))
    return draw(
        st.sampled_from([path, path, path, path.upper(), path[:place] + draw(SEGMENT) + path[place:], path[place:]])
    )


SENT = st.sampled_from([*METHODS, "HEAD", "PUT", "OPTIONS", "get"])
PATHS = st.one_of(spellings(), st.lists(SEGMENT, max_size=4).map(lambda parts: "/" + "/".join(parts)))


@settings(max_examples=200)
@example(path="/scale_elastic_ep\n", method="POST", root="")
@example(path="/abort_request\n", method="POST", root="")
@given(
    path=PATHS, method=st.sampled_from([*METHODS, "HEAD", "PUT", "OPTIONS", "get"]), root=st.sampled_from(["", "/p"])
)
def test_what_answers_is_open(path, method, root):
    """Kills: a spelling that a guard takes for another route, or for none, and the application for a route."""
    for app in (GUIDED, PLAIN):
        for asked in (path, root + path):
            template = reached(app, asked, method, root)
            assert template is None or may_answer(template, app is GUIDED), template
            assert not (template and asked.endswith("\n")), "those who read a path know it by its name"


def filled(template: str) -> Iterator[str]:
    whole = template.replace("{method}", "configure").replace("{response_id}", "r1").replace("{name}", "n")
    if ":path}" not in whole:
        yield whole
    else:
        yield from (whole.partition("{")[0] + rest for rest in ("a", "Qwen/Qwen2.5-VL-32B"))


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_route_answers_exactly_where_it_is_open(template):
    """Kills: guards that are closed to everything."""
    for path in filled(template):
        for app in (GUIDED, PLAIN):
            answers = reached(app, path)
            assert answers == (template if may_answer(template, app is GUIDED) else None)
            assert reached(app, "/p" + path, root_path="/p") == answers
