"""How a strength comes in and how an answer tells it: by field, by the model's name, in a header on every route."""

import json

import pytest

from servers import chat_messages
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guidance import Guidance
from sgl_proxythinker.http.guidance_header import guidance_header
from sgl_proxythinker.laws import read_law
from sgl_proxythinker.requests.model_name import ModelName, read_model_name

HI = chat_messages("Hi")


class TestNames:
    @pytest.mark.parametrize("model", [None, 5, "default", "other", "NAME", "a:b", "N@1", "N+e"])
    def test_a_name_without_a_strength_says_nothing(self, model):
        assert read_model_name(model, model if model in ("N@1", "N+e") else "NAME") == ModelName()

    @pytest.mark.parametrize(("number", "alpha"), [("0", 0), ("0.8", 0.8), ("-10", -10), ("1e-3", 0.001), (".5", 0.5)])
    def test_a_name_with_a_strength_is_read(self, number, alpha):
        assert read_model_name(f"NAME@{number}", "NAME") == ModelName(None, alpha)
        assert read_model_name(f"org/N@v1@{number}", "org/N@v1") == ModelName(None, alpha)
        assert read_model_name(f"NAME+math@{number}", "NAME") == ModelName("math", alpha)

    def test_a_name_with_an_expert_alone_says_no_strength(self):
        assert read_model_name("NAME+math", "NAME") == ModelName("math")
        assert read_model_name("a+b@c+math@2", "a+b@c") == ModelName("math", 2.0)

    @pytest.mark.parametrize(
        "model",
        ["NAME@", "NAME@x", "NAME@11", "NAME@nan", "NAME@inf", "NAME@ 1", "NAME@1_0", "other@0.5", "@0.5",
         "NAME@0.5@0.5", "name@0.5", "default@0.5", "NAME+", "NAME+@0.5", "NAME+math@", "NAME@0.5+math", "other+math",
         "NAMEx+math", "+math"],
    )  # fmt: skip
    def test_any_other_is_refused(self, model):
        with pytest.raises(RequestError, match="model is"):
            read_model_name(model, "NAME")

    def test_the_sentence_says_which_part_is_wrong(self):
        for model in ("default@0.5", "other+math"):
            with pytest.raises(RequestError, match="begin with this server's own name, which is 'NAME'"):
                read_model_name(model, "NAME")
            with pytest.raises(RequestError, match="which is the one that /v1/models lists"):
                read_model_name(model, "/a/path")
        for model in ("NAME@lots", "NAME+"):
            with pytest.raises(RequestError, match="it has to be NAME.EXPERT, .*the strength a number"):
                read_model_name(model, "NAME")


class TestHeader:
    def test_one_prompt_is_an_object_and_several_a_list(self):
        a, b = Guidance.of(0.8), Guidance()
        one = {"proxy_alpha": 0.8, "proxy_amateur_alpha": 0.8}
        other = {"proxy_alpha": 0.0, "proxy_amateur_alpha": 0.0}
        assert json.loads(guidance_header([a])) == one
        assert json.loads(guidance_header([a, b])) == [one, other]
        assert json.loads(guidance_header([a, a, b])) == [{**one, "prompts": 2}, other]

    def test_a_law_is_told_of_the_prompts_that_have_one(self):
        """Kills: neighbours of one strength taken for alike, or compared by names that one of them lacks."""
        constant, ruled = Guidance.of(0.8), Guidance.of(0.8, law=read_law({"kind": "entropy", "above": 1.0}))
        for guidances in ([constant, ruled], [ruled, constant]):
            assert json.loads(guidance_header(guidances)) == [guidance.as_params() for guidance in guidances]
        assert json.loads(guidance_header([ruled, ruled])) == [{**ruled.as_params(), "prompts": 2}]

    def test_it_stays_short_enough_for_every_client(self):
        assert len(guidance_header([Guidance.of(n / 1000, 0.0) for n in range(1000)])) <= 4096


def header(response):
    return json.loads(response.headers["proxy-guidance"])


def bodies(served, alpha):
    """One body for each route that generates, its strength in the model's name."""
    name = f"{served}@{alpha}"
    return {
        "/generate": {"text": "Hi", "sampling_params": {"max_new_tokens": 3, "temperature": 0}, "model": name},
        "/v1/chat/completions": {"messages": HI, "max_tokens": 3, "model": name},
        "/invocations": {"messages": HI, "max_tokens": 3, "model": name},
        "/v1/completions": {"prompt": "Hi", "max_tokens": 3, "model": name},
        "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "model": name},
        "/api/generate": {"prompt": "Hi", "options": {"num_predict": 3}, "model": name, "stream": False},
    }


@pytest.mark.xdist_group("guided")
class TestRoutes:
    @pytest.fixture(scope="class")
    def served(self, guided):
        return guided.get("/v1/models").json()["data"][0]["id"]

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("alpha", [0.8, 0])
    @pytest.mark.parametrize("route", bodies("", 0))
    def test_the_name_carries_it_and_the_header_tells_it(self, guided, served, route, alpha, stream):
        response = guided.post(route, {**bodies(served, alpha)[route], "stream": stream})
        assert response.ok, response.text
        assert header(response) == {"proxy_alpha": alpha, "proxy_amateur_alpha": alpha}

    @pytest.mark.parametrize("route", bodies("", 0))
    def test_without_one_the_header_tells_the_servers(self, guided, route):
        response = guided.post(route, {**bodies("", 0)[route], "model": "default"})
        assert header(response)["proxy_alpha"] == 0.5

    @pytest.mark.parametrize("route", bodies("", 0))
    def test_a_wrong_name_is_a_400_before_the_first_byte(self, guided, route):
        for stream in (False, True):
            response = guided.post(route, {**bodies("other", 1)[route], "stream": stream})
            assert response.status_code == 400 and "model is" in response.text

    def test_it_is_the_strength_that_is_used(self, guided, served):
        params = {"max_new_tokens": 8, "temperature": 0}
        by_field = guided.generate(text="Count", sampling_params={**params, "custom_params": {"proxy_alpha": 3}})
        by_name = guided.generate(text="Count", sampling_params=params, model=f"{served}@3")
        assert by_name["output_ids"] == by_field["output_ids"] and by_name["meta_info"]["proxy_alpha"] == 3
        assert (
            guided.generate(text="Count", sampling_params=params, model=f"{served}@0")["output_ids"]
            != by_field["output_ids"]
        )

    def test_both_carriers_may_agree_and_may_not_differ(self, guided, served):
        params = {"max_new_tokens": 2, "custom_params": {"proxy_alpha": 0.8}}
        same = guided.post("/generate", {"text": "Hi", "sampling_params": params, "model": f"{served}@0.8"})
        other = guided.post("/generate", {"text": "Hi", "sampling_params": params, "model": f"{served}@0.5"})
        assert same.ok and other.status_code == 400 and "send one of them" in other.text

    def test_a_batch_is_a_list(self, guided):
        params = [{"max_new_tokens": 2, "custom_params": {"proxy_alpha": alpha}} for alpha in (0, 2, 2)]
        told = header(guided.post("/generate", {"text": ["a", "b", "c"], "sampling_params": params}))
        assert [(entry["proxy_alpha"], entry.get("prompts", 1)) for entry in told] == [(0, 1), (2, 2)]

    def test_messages_take_custom_params_too(self, guided):
        body = {**bodies("", 0)["/v1/messages"], "model": "default", "custom_params": {"proxy_alpha": 2}}
        assert header(guided.post("/v1/messages", body))["proxy_alpha"] == 2
        lost = guided.post("/v1/messages", {**body, "custom_params": {"proxy_trace": True}})
        assert lost.status_code == 400 and "proxy_trace has no place" in lost.text

    def test_an_error_tells_no_guidance(self, guided):
        assert "proxy-guidance" not in guided.post("/generate", {"text": ""}).headers


@pytest.mark.xdist_group("plain")
def test_a_plain_server_is_its_base_alone(plain):
    served = plain.get("/v1/models").json()["data"][0]["id"]
    body = {"text": "Hi", "sampling_params": {"max_new_tokens": 2}}
    assert header(plain.post("/generate", {**body, "model": f"{served}@0"}))["proxy_alpha"] == 0
    refused = plain.post("/generate", {**body, "model": f"{served}@0.8"})
    assert refused.status_code == 400 and "runs the base model alone" in refused.text
