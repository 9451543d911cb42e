"""Mistakes that people make: the answer has one form on every route, and says what to do."""

import pytest

TEXT = {"messages": [{"role": "user", "content": "Hi"}]}
PICTURE = "data:image/png;base64,AAAA"


def part(**fields):
    return {"messages": [{"role": "user", "content": [fields]}]}


# (route, body, what the sentence has)
MISTAKES = [
    ("/v1/chat/completions", TEXT | {"n": 0}, ("n is 0", "greater than or equal to 1")),
    ("/v1/chat/completions", TEXT | {"max_tokens": 2, "min_tokens": 3}, ("min_tokens is 3", "max_tokens, which is 2")),
    ("/v1/chat/completions", TEXT | {"custom_params": {"proxy_alpha": 11}}, ("proxy_alpha is 11", "[-10, 10]")),
    (
        "/v1/chat/completions",
        TEXT | {"custom_parms": {"proxy_alpha": 1}},
        ("custom_parms.proxy_alpha", "custom_params"),
    ),
    ("/generate", {"text": "x", "sampling_parms": {"custom_params": {"proxy_alpha": 1}}}, ("sampling_parms.custom",)),
    ("/generate", {"text": ["x", "y"], "image_data": [None]}, ("image_data has 1 entries", "2 prompts")),
    ("/generate", {"text": "x", "sampling_params": "x"}, ("sampling_params", "object")),
    (
        "/vertex_generate",
        {"instances": [{"text": "x"}], "parameters": {"custom_params": {"proxy_alpha": 1}}},
        ('{"parameters": {"sampling_params": {"custom_params"',),
    ),
    ("/v1/chat/completions", part(type="image_url", image_url=PICTURE), ("content[0].image_url is", '{"url": "data:')),
    (
        "/v1/chat/completions",
        part(type="image", source={"type": "base64", "media_type": "image/png", "data": "AAAA"}),
        ('content[0].type is "image"', '"type": "image_url"'),
    ),
    (
        "/v1/messages",
        part(type="image_url", image_url={"url": PICTURE}) | {"model": "m", "max_tokens": 2},
        ('content[0].type is "image_url"', '"type": "image", "source"'),
    ),
    ("/api/generate", {"model": "m", "prompt": "x", "options": {"temperature": -1}}, ("options.temperature is -1",)),
]


@pytest.mark.parametrize(("route", "body", "fragments"), MISTAKES)
def test_the_answer_says_what_to_do(guided, route, body, fragments):
    """Kills: an error without `error.message`, a field that the client did not send, a wish that is lost."""
    response = guided.post(route, {"model": "default"} | body if route.startswith("/v1") else body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    if route == "/api/generate":  # Ollama's form
        sentence = error
    else:
        sentence = error["message"]
    assert all(fragment in sentence for fragment in fragments), sentence
    if route != "/v1/messages" and route != "/api/generate":
        told = {"object": "error", "message": sentence, "type": "BadRequest", "param": None, "code": 400}
        assert error == told and response.json() == told | {"error": told}


def test_a_misspelled_container_that_holds_no_wish_is_ignored_as_openais_clients_expect(guided):
    body = {"model": "default", "max_tokens": 1, **TEXT}
    for harmless in ({"custom_parms": {"alpha": 1}}, {"x": "proxy_alpha"}, {"x": {"proxy_server_request": 1}}):
        assert guided.post("/v1/chat/completions", body | harmless).status_code == 200
