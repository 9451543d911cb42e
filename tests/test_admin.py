"""Routes that act on the whole server need its admin key, and no client names files of the server."""

import asyncio
import json

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from servers import ADMIN_KEY
from sgl_proxythinker import ProxyBackend
from sgl_proxythinker.http.admin_guard import AdminGuard, is_admin_abort
from sgl_proxythinker.policy.routes import ADMIN, NAMES_FILES, Routes, Verdict, classify

# What each would do, if it were let through: (method, route, body).
CALLS = [
    ("POST", "/flush_cache", None),
    ("GET", "/flush_cache", None),
    ("POST", "/slow_down", {"forward_sleep_time": 1.0}),
    ("GET", "/slow_down", {"forward_sleep_time": 1.0}),
    ("POST", "/configure_logging", {"log_requests": True}),
    ("POST", "/configure_logging", {"dump_requests_folder": "profiles"}),
    ("POST", "/start_profile", {"output_dir": "profiles"}),
    ("GET", "/start_profile", None),
    ("POST", "/stop_profile", None),
    ("POST", "/set_trace_level?level=1", None),
    ("GET", "/freeze_gc", None),
    ("POST", "/abort_request", {"abort_all": True}),
    ("POST", "/abort_request", {"rid": "a", "abort_all": "yes"}),
]
KEY = {"authorization": "Bearer secret"}


async def answer(key, method, path, body=None, headers=None):
    """Status and body of one request to an application behind the guard, without a server."""
    routes = [Route(route, echo, methods=["GET", "POST"]) for route in (*sorted(ADMIN), "/abort_request", "/generate")]
    app = Starlette(routes=routes)
    app.add_middleware(AdminGuard, routes=Routes(routes), admin_api_key=key)
    route, _, query = path.partition("?")
    headers = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {
        "type": "http", "method": method, "path": route, "query_string": query.encode(), "headers": headers,
        "root_path": "", "http_version": "1.1",
    }  # fmt: skip
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    parts = [{"type": "http.request", "body": raw[:3], "more_body": True}, {"type": "http.request", "body": raw[3:]}]
    sent = []

    async def receive():
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode()


async def echo(request):
    return PlainTextResponse(b"reached " + await request.body())


def ask(*args, **kwargs):
    return asyncio.run(answer(*args, **kwargs))


class TestGuard:
    @pytest.mark.parametrize(("method", "path", "body"), CALLS)
    def test_without_a_key_on_the_server_nobody_gets_through(self, method, path, body):
        for headers in ({}, KEY, {"authorization": "Bearer "}, {"authorization": "Bearer None"}):
            status, text = ask(None, method, path, body, headers)
            assert status == 403 and "--admin-api-key" in text, text

    @pytest.mark.parametrize(("method", "path", "body"), CALLS)
    def test_another_key_is_a_401(self, method, path, body):
        for headers in ({}, {"authorization": "Bearer Secret"}, {"authorization": "Basic secret"}):
            status, text = ask("secret", method, path, body, headers)
            assert status == 401 and "Authorization: Bearer" in text and "secret" not in text

    @pytest.mark.parametrize("route", sorted(ADMIN))
    def test_the_key_opens_every_one(self, route):
        assert ask("secret", "POST", route.replace("{method}", "m"), {"a": 1}, KEY) == (200, 'reached {"a": 1}')

    @pytest.mark.parametrize(
        ("route", "field"), [(route, field) for route in NAMES_FILES for field in NAMES_FILES[route]]
    )
    def test_no_path_comes_from_outside_with_the_key_either(self, route, field):
        status, text = ask("secret", "POST", route, {field: "/etc"}, KEY)
        assert status == 400 and field in text and "/etc" not in text
        assert ask("secret", "POST", route, {field: None}, KEY)[0] == 200

    def test_one_request_may_be_aborted_by_everybody(self):
        for body in ({"rid": "a"}, {"rid": "a", "abort_all": False}, {"abort_all": None}, b"", [1]):
            assert ask(None, "POST", "/abort_request", body)[0] == 200

    @pytest.mark.parametrize("body", [b"{", b"{'abort_all': true}", b"[" * 5000])
    def test_what_is_no_json_is_a_400(self, body):
        assert ask(None, "POST", "/abort_request", body)[0] == 400

    def test_what_another_reader_takes_for_no_json_does_not_pass_unseen(self):
        """Kills: everybody's requests, ended by whom SGLang's reader takes at his word: it knows deeper lists."""
        body = b'{"abort_all":true,"x":' + b"[" * 1010 + b"]" * 1010 + b"}"
        assert ask(None, "POST", "/abort_request", body)[0] == 403

    def test_generation_needs_no_admin_key(self):
        assert ask(None, "POST", "/generate", {"abort_all": True}) == (200, 'reached {"abort_all": true}')

    def test_the_application_is_told_that_it_starts(self):
        seen = []

        async def app(scope, receive, send):
            seen.append(scope["type"])

        asyncio.run(AdminGuard(app, Routes([]), None)({"type": "lifespan"}, None, None))
        assert seen == ["lifespan"], "SGLang prepares its routes there"

    def test_a_body_too_long_to_be_looked_at_does_not_pass_unseen(self):
        assert ask(None, "POST", "/abort_request", b" " * (1 << 22) + b'{"abort_all": true}')[0] == 413

    @pytest.mark.parametrize("value", [True, 1, "true", "yes", [1], {}])
    def test_abort_all_is_what_may_be_read_as_true(self, value):
        assert is_admin_abort({"abort_all": value})
        assert not is_admin_abort({"rid": value})


def test_every_admin_route_is_one_that_sglang_has():
    assert [route for route in {*ADMIN, *NAMES_FILES} if classify(route) is None] == []
    assert {route for route in ADMIN if classify(route) is not Verdict.REFUSED} == {
        "/start_profile", "/stop_profile", "/set_trace_level", "/configure_logging", "/freeze_gc", "/slow_down",
        "/flush_cache", "/parse_function_call", "/separate_reasoning",
    }  # fmt: skip


def call(server, method, path, body, headers):
    return (server.post if method == "POST" else server.get)(path, **_json(method, body), headers=headers)


def _json(method, body):
    return {"body": body} if method == "POST" else {} if body is None else {"json": body}


@pytest.mark.xdist_group("family")
@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_a_server_without_a_key_answers_403(family, method, path, body):
    response = call(family, method, path, body, {})
    assert response.status_code == 403 and "--admin-api-key" in response.json()["error"]["message"], response.text


@pytest.mark.parametrize(
    "which", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("guided", "plain")]
)
def test_a_server_with_a_key_asks_for_it(which, request):
    server = request.getfixturevalue(which)
    for method, path, body in CALLS:
        assert call(server, method, path, body, {}).status_code == 401, path
    for path, body in (
        ("/start_profile", {"output_dir": "profiles"}),
        ("/configure_logging", {"crash_dump_folder": "/"}),
    ):
        response = server.post(path, body)
        assert response.status_code == 400 and "no client may name files" in response.text
    assert server.post("/flush_cache?timeout=60", None).ok
    assert server.get("/health", headers={}).ok and server.get("/v1/models", headers={}).ok


@pytest.mark.xdist_group("guided")
def test_programs_flush_with_the_admin_key_as_their_key(guided):
    ProxyBackend(guided.url, api_key=ADMIN_KEY).flush_cache()
    with pytest.raises(RuntimeError, match="Unauthorized"):
        ProxyBackend(guided.url).flush_cache()


@pytest.mark.xdist_group("guided")
def test_models_lists_the_name_and_the_base_alone(guided, triple):
    name = str(triple.base)
    listed = guided.openai.models.list().data
    assert [card.id for card in listed][:2] == [name, f"{name}@0"]
    for known in (name, f"{name}@0", f"{name}@0.8", f"{name}@-1"):
        assert guided.openai.models.retrieve(known).id == known
    for unknown in ("other", f"{name}@", f"{name}@x", f"{name}@11", f"{name}@nan", f"{name}@0.8@0"):
        assert guided.get(f"/v1/models/{unknown}").status_code == 404, unknown


@pytest.mark.xdist_group("plain")
def test_a_server_without_the_flag_has_no_metrics(plain):
    assert plain.get("/metrics").status_code == 404


@pytest.mark.xdist_group("plain")
def test_the_base_alone_knows_no_other_strength_than_0(plain, triple):
    assert plain.get(f"/v1/models/{triple.base}@0").ok
    assert plain.get(f"/v1/models/{triple.base}@0.8").status_code == 404


@pytest.mark.xdist_group("guided")
@pytest.mark.parametrize("route", ["/server_info", "/get_server_info"])
def test_nobody_is_told_the_key(guided, route):
    """SGLang's own shows every argument that a server was started with."""
    response = guided.get(route)
    assert response.json()["proxy"]["alpha"] == 0.5 and ADMIN_KEY not in response.text
