"""Errors as clients read them, and the middleware that holds the start of a stream until it is known."""

import logging

import pytest
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from sgl_proxythinker.guidance import Guidance
from sgl_proxythinker.http.error_bodies import error_body, rewritten
from sgl_proxythinker.http.middleware import HonestAnswers
from sgl_proxythinker.requests.call import current
from sgl_proxythinker.sentences import MAX_SENTENCE, sentence_of, shown, tidy


class TestSentences:
    @pytest.mark.parametrize(
        ("message", "wanted"),
        [
            ("cannot identify image file <_io.BytesIO object at 0x7f12ab>", "cannot identify image file a BytesIO"),
            ("bad\n  value\there", "bad value here"),
            ("bad: " + "iVBORw0KGgo" * 100, "bad: ..."),
            ('boom File "/srv/me/lib/server.py", line 12, in f end', "boom end"),
            ("no such file: '/srv/data/models/base/config.json'", "no such file: '...'"),
            ("[xgrammar.cc:12] no such rule, parser.rs:3: twice", "no such rule, twice"),
            ("use /v1/chat/completions", "use /v1/chat/completions"),
        ],
    )
    def test_what_no_client_needs_is_left_out(self, message, wanted):
        assert tidy(message) == wanted

    def test_a_message_is_short(self):
        assert len(tidy("word " * 1000)) == MAX_SENTENCE

    @pytest.mark.parametrize("text", [".", "a", " /a/", "<a", "[a.", '"a/b/'])
    def test_a_message_of_any_length_is_read_in_passing(self, text):
        """Kills: an expression of quadratic time, which this test would wait for, and every client of a server."""
        assert len(tidy(text * 1_000_000)) <= MAX_SENTENCE

    @pytest.mark.parametrize(
        ("value", "wanted"),
        [(None, "null"), (True, "true"), (1.5, "1.5"), ("a" * 201, "a text of 201 characters"), ([], "[]"),
         ({}, "an object of 0 names"),
         ([[1]], "a list of 1"), (object(), "a object")],
    )  # fmt: skip
    def test_values_are_shown_by_their_beginning(self, value, wanted):
        assert shown(value) == wanted

    def test_a_union_tells_of_the_branch_that_was_meant(self):
        class Text(BaseModel):
            text: str

        class Image(BaseModel):
            image: Text

        class Body(BaseModel):
            parts: list[Text | Image]

        with pytest.raises(ValidationError) as error:
            Body.model_validate({"parts": [{"image": {"text": 5}}]})
        assert sentence_of(error.value.errors()) == "parts[0].image.text is 5: it should be a valid string."


class TestBodies:
    def test_an_error_has_the_form_of_its_api(self):
        assert error_body("no", 400, "/v1/chat/completions")["error"]["message"] == "no"
        assert error_body("no", 400, "/v1/messages")["error"]["type"] == "invalid_request_error"

    @pytest.mark.parametrize(
        "body",
        [
            b'{"error": {"message": "a\\nb"}}',
            b'{"message": "a\\nb", "code": 400}',
            b'{"error": "a\\nb"}',
            b'{"detail": "a\\nb"}',
        ],
    )
    def test_every_form_of_an_error_becomes_one_sentence(self, body):
        assert b"a b" in rewritten(body, 400, "/generate")

    def test_a_fault_is_told_to_the_log_alone(self, caplog):
        body = rewritten(b'{"message": "Internal server error: secret", "type": "InternalServerError"}', 500, "/x")
        assert b"secret" not in body and b"stands in the server's log as error" in body
        number = body.split(b"as error ")[1][:12].decode()
        assert any(number in record.message and "secret" in record.message for record in caplog.records)

    def test_a_sentence_of_ours_stays_as_it_is(self):
        body = b'{"message": "the guided distribution became NaN", "type": "500"}'
        assert b"became NaN" in rewritten(body, 500, "/generate")


def stream(*events, fail=None, kind="text/event-stream"):
    async def endpoint(request):
        await request.body()

        async def body():
            for event in events:
                yield event
            if fail is not None:
                raise fail

        return StreamingResponse(body(), media_type=kind)

    return endpoint


async def guided(request):
    current().guidance = [Guidance.of(0.8)]
    return PlainTextResponse("ok")


async def raising(request):
    raise KeyError("secret")


async def refusing(request):
    await request.body()
    return JSONResponse({"error": {"message": "bad\nvalue"}}, status_code=400)


ABORTED = (
    b'data: {"text": "{", "meta_info": {"finish_reason": {"type": "abort", "message": "no", "status_code": 400}}}\n\n'
)
OPENED = b'event: message_start\ndata: {"type": "message_start"}\n\n'
ENDED = b'event: error\ndata: {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}\n\n'
LATE = b'data: {"error": {"message": "Internal server error: secret", "code": 500}}\n\n'
APP = HonestAnswers(
    Starlette(
        routes=[
            Route("/guided", guided),
            Route("/raising", raising),
            Route("/refusing", refusing, methods=["POST"]),
            Route("/good", stream(b"data: 1\n\n", b"data: [DONE]\n\n"), methods=["POST"]),
            Route("/bad", stream(b'data: {"error": {"message": "no", "code": 400}}\n\n', b"data: [DONE]\n\n")),
            Route("/aborted", stream(ABORTED)),
            Route("/v1/messages", stream(OPENED, ENDED)),
            Route("/value", stream(fail=ValueError("no"), kind="application/x-ndjson")),
            Route("/fault", stream(fail=KeyError("secret"))),
            Route("/late", stream(b"data: 1\n\n", LATE)),
        ]
    ),
    max_body_mib=1,
    max_body_values=1000,
)  # fmt: skip


class TestMiddleware:
    @pytest.fixture
    def client(self):
        return TestClient(APP, raise_server_exceptions=False)

    def test_an_answer_tells_its_guidance(self, client):
        assert client.get("/guided").headers["proxy-guidance"] == '{"proxy_alpha": 0.8, "proxy_amateur_alpha": 0.8}'
        assert "proxy-guidance" not in client.post("/good").headers, "of the request before"

    def test_a_stream_passes_unchanged(self, client):
        assert client.post("/good").text == "data: 1\n\ndata: [DONE]\n\n"

    @pytest.mark.parametrize("path", ["/bad", "/aborted", "/v1/messages", "/value"])
    def test_a_stream_that_is_refused_has_the_status_of_a_refusal(self, client, path):
        response = client.get(path)
        assert response.status_code == 400 and response.json()["error"]["message"] == "no"
        assert response.headers["content-type"] == "application/json"

    @pytest.mark.parametrize("path", ["/fault", "/raising"])
    def test_a_fault_is_a_500_with_an_id(self, client, path, caplog):
        with caplog.at_level(logging.ERROR):
            response = client.get(path)
        assert response.status_code == 500 and "secret" not in response.text
        number = response.json()["error"]["message"].split("as error ")[1].rstrip(".")
        assert number in caplog.text

    def test_a_fault_in_the_middle_tells_no_more(self, client):
        text = client.get("/late").text
        assert text.startswith("data: 1\n\n") and "secret" not in text and "as error" in text

    def test_a_body_is_bounded_with_and_without_its_length(self, client):
        big = b"x" * (2 << 20)
        for content in (big, iter([big[: 1 << 20], big[1 << 20 :]])):
            response = client.post("/refusing", content=content)
            assert response.status_code == 413 and "--proxy-max-body-mib" in response.json()["error"]["message"]

    def test_values_are_bounded_before_they_are_read(self, client):
        """Kills: 256 MiB of `[0,0,...`, which all other requests would wait for, for a minute."""
        many = b"0," * 1001
        for content in (many, iter([many[:1500], many[1500:]])):
            response = client.post("/refusing", content=content)
            told = response.json()["error"]["message"]
            assert (
                response.status_code == 413 and "more than 1,000 values by its commas (--proxy-max-body-values" in told
            )
        assert client.post("/refusing", content=b"0," * 1000).status_code == 400

    def test_a_refusal_is_one_sentence(self, client):
        assert client.post("/refusing").json()["error"]["message"] == "bad value"
