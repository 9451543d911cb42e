"""Mistakes that people make: the answer has one form on every route, and says what to do."""

import pytest
import requests

from servers import ADMIN_KEY

pytestmark = pytest.mark.xdist_group("guided")

KEY = {"authorization": f"Bearer {ADMIN_KEY}"}
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
    ("/generate", {"text": "x", "sampling_params": "x"}, ("sampling_params is 'x'", "an object")),
    (
        "/vertex_generate",
        {"instances": [{"text": "x"}], "parameters": {"custom_params": {"proxy_alpha": 1}}},
        ('{"parameters": {"sampling_params": {"custom_params"',),
    ),
    ("/v1/chat/completions", part(type="image_url", image_url=PICTURE), ("content[0].image_url is", '{"url": "..."}')),
    (
        "/v1/chat/completions",
        part(type="image", source={"type": "base64", "media_type": "image/png", "data": "AAAA"}),
        ("content[0].type is 'image'", '"type": "image_url"'),
    ),
    (
        "/v1/messages",
        part(type="image_url", image_url={"url": PICTURE}) | {"model": "m", "max_tokens": 2},
        ("content[0].type is 'image_url'", '"type": "image", "source"'),
    ),
    ("/generate", {"text": "x", "parameters": {"custom_params": {"proxy_alpha": 0}}}, ("parameters.custom_params",)),
    ("/generate", {"text": "x", "instances": [{"custom_params": {"proxy_alpha": 0}}]}, ("instances[0].custom_params",)),
    (
        "/vertex_generate",
        {"instances": [{"text": "x", "sampling_params": {"custom_params": {"proxy_alpha": 0}}}]},
        ("instances[0].sampling_params.custom_params.proxy_alpha", '{"parameters": {"sampling_params"'),
    ),
    ("/vertex_generate", {"instances": [{"text": "x", "n": 2}]}, ("instances[0] has", "parameters")),
    ("/vertex_generate", {"instances": [{"text": "x", "input_ids": [5]}]}, ("instances[0] has two prompts",)),
    (
        "/v1/chat/completions",
        part(type="video_url", video_url={"url": "data:video/mp4;base64,AAAA"}) | {"input_ids": [5]},
        ("messages have a video or a sound",),
    ),
    (
        "/v1/chat/completions",
        TEXT | {"tool_choice": "none", "tools": [{"type": "function", "function": {"name": "f" * 300_000}}]},
        ("tools are 300,", "--proxy-max-schema-bytes"),
    ),
    ("/vertex_generate", {"instances": [{"text": "x"}], "return_logprob": True}, ("return_logprob", "parameters")),
    (
        "/v1/completions",
        {"prompt": "x", "json_schema": "{}", "response_format": {"type": "json_object"}},
        ("json_schema and response_format",),
    ),
    *(
        ("/v1/chat/completions", TEXT | {"response_format": form}, ('{"type": "json_schema", "json_schema"',))
        for form in (
            {"type": "json_object", "schema": {"enum": [1]}},
            {"type": "json_object", "json_schema": {"name": "a", "schema": {}}},
            {"type": "text", "json_schema": {"name": "a", "schema": {}}},
            {"type": "json_schema"},
        )
    ),
    (
        "/generate",
        {"text": "x", "sampling_params": {"ignore_eos": True, "stop_token_ids": [5]}},
        ("ignore_eos is true and stop_token_ids",),
    ),
    (
        "/generate",
        {"text": "x", "sampling_params": {"min_new_tokens": 2, "stop": "a"}},
        ("min_new_tokens is 2 and stop",),
    ),
    ("/v1/completions", {"prompt": "x", "min_tokens": 2, "stop_regex": "a"}, ("min_tokens is 2 and stop_regex",)),
    ("/generate", {"text": "x", "logprob_start_len": 0}, ("logprob_start_len is set and return_logprob is not",)),
    ("/v1/chat/completions", {"messages": [{"role": "critic", "content": "x"}]}, ("role is 'critic'", "user")),
    ("/v1/chat/completions", TEXT | {"seed": 2**64}, ("seed is", "64 bits")),
    (
        "/v1/chat/completions",
        part(type="text", text="Hi", image_url={"url": PICTURE}),
        ("content[0]", "image_url would be lost"),
    ),
    (
        "/v1/messages",
        part(type="image", source={"type": "url", "data": "AAAA"}) | {"model": "m", "max_tokens": 2},
        ("content[0].source", "url is wanted"),
    ),
    (
        "/parse_function_call",
        {
            "text": "<tool_call>\n[1]\n</tool_call>",
            "tool_call_parser": "qwen25",
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        },
        ("can't be read as calls",),
    ),
    ("/api/generate", {"model": "m", "prompt": "x", "options": {"temperature": -1}}, ("options.temperature is -1",)),
]


@pytest.mark.parametrize(("route", "body", "fragments"), MISTAKES)
def test_the_answer_says_what_to_do(guided, route, body, fragments):
    """Kills: an error without `error.message`, a field that the client did not send, a wish that is lost."""
    response = guided.post(route, {"model": "default"} | body if route.startswith("/v1") else body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    sentence = error["message"]
    assert all(fragment in sentence for fragment in fragments), sentence
    if route != "/v1/messages":  # it has Anthropic's form
        told = {"object": "error", "message": sentence, "type": "BadRequest", "param": None, "code": 400}
        assert error == told and response.json() == told | {"error": told}


def test_a_misspelled_container_that_holds_no_wish_is_ignored_as_openais_clients_expect(guided):
    body = {"model": "default", "max_tokens": 1, **TEXT}
    for harmless in ({"custom_parms": {"alpha": 1}}, {"x": "proxy_alpha"}, {"x": {"proxy_server_request": 1}}):
        assert guided.post("/v1/chat/completions", body | harmless).status_code == 200


def test_defaults_at_the_top_of_vertex_generate_ask_for_nothing(guided):
    body = {"instances": [{"text": "x", "image_data": None}], "rid": None, "stream": False}
    response = guided.post("/vertex_generate", body | {"parameters": {"sampling_params": {"max_new_tokens": 1}}})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("pattern", [r"\p{L}", r"\u{41}|\p{Lu}", "(?<n>a)", "[a-z]"])
def test_a_stop_regex_has_the_syntax_that_is_documented(guided, pattern):
    """Kills: a pattern that Python's `re` doesn't know, as an internal error."""
    params = {"max_new_tokens": 8, "temperature": 0, "stop_regex": pattern}
    response = guided.post("/generate", {"text": "x", "sampling_params": params})
    assert response.status_code == 200, response.text


def test_a_deep_body_ends_nothing_where_only_its_key_is_looked_at(guided):
    body = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"
    response = requests.post(
        guided.url + "/abort_request", data=body, headers={**KEY, "content-type": "application/json"}
    )
    assert response.status_code == 400, response.text
