"""Through real routers of the package index: strengths by name arrive on every route, and what is dropped is known."""

import json

import pytest

from routers import models, routing, wait_until

pytestmark = pytest.mark.xdist_group("guided")

HI = [{"role": "user", "content": "Count to ten"}]
# Route, does it stream, what is sent, the text of an answer. Every body asks for the same 12 greedy tokens.
CHAT = {"messages": HI, "max_tokens": 12, "temperature": 0, "ignore_eos": True}
COMPLETION = {"prompt": "Count", "max_tokens": 12, "temperature": 0, "ignore_eos": True}
GENERATE = {"text": "Count", "sampling_params": {"max_new_tokens": 12, "temperature": 0, "ignore_eos": True}}
BODIES = {
    "chat": ("/v1/chat/completions", CHAT),
    "chat stream": ("/v1/chat/completions", {**CHAT, "stream": True}),
    "completions": ("/v1/completions", COMPLETION),
    "completions stream": ("/v1/completions", {**COMPLETION, "stream": True}),
    "generate": ("/generate", GENERATE),
    "generate stream": ("/generate", {**GENERATE, "stream": True}),
}
MESSAGES = ("/v1/messages", {"messages": HI, "max_tokens": 12, "temperature": 0})
STRENGTHS = ("0", "4")

# Where a router lets custom_params through; docs/fields.md says the same.
KEEPS_CUSTOM_PARAMS = {
    "sglang-router": {"completions", "completions stream"},
    "smg": set(BODIES),
}


@pytest.fixture(scope="module")
def name(guided):
    return guided.get("/v1/models").json()["data"][0]["id"]


@pytest.fixture(scope="module")
def sglang_router(guided, tmp_path_factory):
    with routing("sglang-router", [guided.url], tmp_path_factory.mktemp("sglang-router")) as router:
        yield router


@pytest.fixture(scope="module")
def smg(guided, name, tmp_path_factory):
    """It routes to names that it knows only, one for each URL of a worker: a user in the URL makes several of one."""
    with routing("smg", [guided.url], tmp_path_factory.mktemp("smg")) as router:
        for strength in STRENGTHS:
            url = guided.url.replace("http://", f"http://strength{strength}@")
            worker = {"url": url, "labels": {"served_model_name": f"{name}@{strength}"}}
            assert router.post("/workers", worker).ok
        wait_until(lambda: {f"{name}@{strength}" for strength in STRENGTHS} <= models(router.url))
        yield router


@pytest.fixture(params=["sglang_router", "smg"])
def router(request):
    return request.getfixturevalue(request.param)


def text_of(response):
    """The text of an answer or of a stream, of any route."""
    assert response.ok, response.text
    if not response.headers["content-type"].startswith("text/event-stream"):
        return _text(response.json())
    response.encoding = "utf-8"  # sglang-router leaves out that it is
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
    answers = [json.loads(line) for line in lines]
    if "text" in answers[-1]:
        return answers[-1]["text"]  # /generate repeats what it has sent
    return "".join(map(_text, answers))


def _text(answer):
    if "content" in answer:
        return "".join(block["text"] for block in answer["content"])
    if "text" in answer:
        return answer["text"]
    texts = [(choice.get("message") or choice.get("delta") or choice) for choice in answer["choices"]]
    return "".join(part.get("content") or part.get("text") or "" for part in texts)


def with_strength(body, strength):
    """A body with `custom_params`, where its route reads them."""
    params = {"custom_params": {"proxy_alpha": float(strength)}}
    if "sampling_params" in body:
        return {**body, "sampling_params": {**body["sampling_params"], **params}}
    return {**body, **params}


@pytest.mark.parametrize("kind", BODIES)
def test_these_prompts_tell_strengths_apart(guided, name, kind):
    route, body = BODIES[kind]
    default = text_of(guided.post(route, {**body, "model": name}))
    texts = [text_of(guided.post(route, {**with_strength(body, strength), "model": name})) for strength in STRENGTHS]
    assert len({default, *texts}) == 3


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("kind", BODIES)
def test_a_strength_by_name_arrives(router, guided, name, kind, strength):
    route, body = BODIES[kind]
    expected = text_of(guided.post(route, {**with_strength(body, strength), "model": name}))
    assert text_of(router.post(route, {**body, "model": f"{name}@{strength}"})) == expected


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_strength_by_name_arrives_on_messages(smg, guided, name, strength):
    route, body = MESSAGES
    expected = text_of(guided.post(route, {**body, "model": f"{name}@{strength}"}))
    assert text_of(smg.post(route, {**body, "model": f"{name}@{strength}"})) == expected
    assert expected != text_of(guided.post(route, {**body, "model": name}))


@pytest.mark.parametrize("kind", BODIES)
def test_custom_params_are_kept_or_dropped_as_the_docs_say(router, guided, name, kind):
    route, body = BODIES[kind]
    sent = {**with_strength(body, "4"), "model": name}
    expected = sent if kind in KEEPS_CUSTOM_PARAMS[router.kind] else {**body, "model": name}
    assert text_of(router.post(route, sent)) == text_of(guided.post(route, expected))


def test_a_refusal_reaches_the_client(router, name):
    response = router.post("/v1/completions", {**with_strength(COMPLETION, "99"), "model": name})
    assert response.status_code == 400 and response.json()["message"].startswith("proxy_alpha is 99"), response.text


def test_smg_refuses_a_name_that_it_was_not_told(smg, name):
    response = smg.post("/v1/chat/completions", {**CHAT, "model": f"{name}@0.8"})
    assert response.status_code == 404 and "No worker available" in response.text


def test_no_router_flushes_the_cache_without_the_key(router, guided):
    """Both have a /flush_cache of their own, which asks every worker's."""
    long = {"text": "Count to ten and back again", "sampling_params": {"max_new_tokens": 2}}
    guided.generate(**long)
    router.post("/flush_cache", {})
    assert guided.generate(**long)["meta_info"]["cached_tokens"] > 0
