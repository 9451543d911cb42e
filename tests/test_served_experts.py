"""Several experts on a server: the oracle's tokens for each and for several at once, and no prefix of another's."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import sglang as sgl
from test_served_laws import ALPHA, IN_FLOAT32, LONG, PLACE, TOKENS, ask_all_cold_and_warm, body, different_answers

from cases import Case, assert_agrees
from servers import chat_messages
from sgl_proxythinker import ProxyBackend, proxy_gen
from sgl_proxythinker.programs.pictures import random_picture
from trace_oracle import assert_is_the_oracles

pytestmark = pytest.mark.xdist_group("guided")

ENTROPY = {"kind": "entropy", "above": 1.9}
SAID = [
    {"proxy_alpha": 0.0},
    {"proxy_alpha": ALPHA},
    {"proxy_expert": "math", "proxy_alpha": ALPHA},
    {"proxy_expert": "charts", "proxy_alpha": ALPHA},
    {"proxy_expert": "charts", "proxy_alpha": ALPHA, "proxy_amateur_alpha": 0.2},
    {"proxy_expert": "math", "proxy_law": {"kind": "schedule", "points": [[0, 0.0], [3, 2.0], [9, -1.0]]}},
    {"proxy_expert": "charts", "proxy_law": {"kind": "divergence", "scale": 10.0, "low": -1.0, "warmup_tokens": 3}},
    {"proxy_experts": {"math": 0.8, "charts": 0.6}},
    {"proxy_experts": {"expert": 0.5, "math": -0.7, "charts": 0.9}, "proxy_clip": 1.5},
    {"proxy_experts": {"expert": 0.6, "math": 0.9}, "proxy_law": ENTROPY},
]


@IN_FLOAT32
def test_each_expert_gives_the_oracles_tokens_beside_all_others_cold_and_warm(guided, reference):
    """Kills: one expert's row, amateur, strength or prefix for another's, and a second pair that adds nothing."""
    picture = random_picture(4, 84, 112)
    prompts = [("Hi", None), (LONG, None), (f"{LONG}{PLACE}", picture)]
    asked, cold = ask_all_cold_and_warm(guided, reference, prompts, SAID)
    assert different_answers(asked, cold) >= len(SAID) - 1, "the experts differ in what they say"


def test_experts_that_take_turns_in_one_conversation_never_go_on_from_anothers_prefix(guided, reference):
    """Kills: keys and values that a model has not written."""
    picture = random_picture(8)
    messages = chat_messages("What is it?", [picture])
    guided.flush_cache()
    wishes = [{"expert": "math"}, {"expert": "charts"}, {"expert": "expert"}, {"experts": {"math": 1.0, "charts": 1.0}}]
    for turn in range(2):
        oracles = [reference.generate(messages, [picture], alpha=1.0, max_new_tokens=16, **wish) for wish in wishes]
        for round_ in range(2):
            for wish, oracle in zip(wishes, oracles, strict=True):
                params = {f"proxy_{name}": value for name, value in wish.items()}
                params |= {"proxy_alpha": 1.0} if "expert" in wish else {}
                answer = guided.chat(messages, logprobs=True, extra_body={"custom_params": params})
                assert_agrees(answer, oracle, Case("What is it?", (picture,), 1.0), reference, **wish)
                cached = answer["choices"][0]["meta_info"]["cached_tokens"]
                # In the second turn the first one, as far as it is the same text, is there.
                assert (cached == len(oracle.input_ids) - 1) if round_ else (cached == 0 or turn), (turn, wish)
        messages = [*messages, {"role": "assistant", "content": "A picture."}, *chat_messages("Is it?")]


@pytest.mark.parametrize("expert", ["math", "charts"])
@pytest.mark.parametrize("alpha", [0.0, ALPHA])
def test_a_trace_tells_of_the_expert_that_is_asked_for(guided, reference, expert, alpha):
    """Beside a trace of another expert, in one batch."""
    others = [{"proxy_alpha": 1.5, "proxy_trace": True}, {"proxy_experts": {"math": 1.0, "charts": 0.5}}]
    own = {"proxy_expert": expert, "proxy_alpha": alpha, "proxy_trace": True}
    with ThreadPoolExecutor(3) as pool:
        _, _, answer = pool.map(lambda said: guided.generate(**body("Tell me more", said)), [*others, own])
    trace = answer["meta_info"]["proxy_trace"]
    assert trace["token_id"] == answer["output_ids"]
    assert_is_the_oracles(trace, reference, "Tell me more", [], alpha, expert=expert)


def test_samples_streams_and_grammars_are_the_named_experts(guided):
    said = {"proxy_experts": {"math": 1.0, "charts": 1.5}}
    whole = guided.generate(**body("Tell me", said))["output_ids"]
    assert [one["output_ids"] for one in guided.generate(**body("Tell me", said, n=3))] == [whole] * 3
    response = guided.post("/generate", body("Tell me", said) | {"stream": True}, stream=True)
    chunks = [line for line in response.iter_lines() if line.startswith(b"data: {")]
    assert json.loads(chunks[-1].removeprefix(b"data: "))["output_ids"] == whole
    assert len(guided.generate(**body("Say", said, regex="[0-9]{6}", ignore_eos=False))["text"]) == 6


class TestCarriers:
    @pytest.fixture(scope="class")
    def served(self, guided):
        return guided.get("/v1/models").json()["data"][0]["id"]

    def test_the_models_name_carries_it_on_every_route(self, guided, served):
        by_field = guided.generate(**body("Count", {"proxy_expert": "math", "proxy_alpha": 2}))
        by_name = guided.generate(**body("Count", {}), model=f"{served}+math@2")
        assert by_name["output_ids"] == by_field["output_ids"]
        assert by_name["meta_info"]["proxy_expert"] == "math" and by_name["meta_info"]["proxy_alpha"] == 2
        for route, asked in {
            "/v1/chat/completions": {"messages": chat_messages("Hi"), "max_tokens": 2},
            "/v1/completions": {"prompt": "Hi", "max_tokens": 2},
            "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
            "/api/generate": {"prompt": "Hi", "options": {"num_predict": 2}, "stream": False},
        }.items():
            response = guided.post(route, asked | {"model": f"{served}+charts"})
            assert response.ok, response.text
            told = json.loads(response.headers["proxy-guidance"])
            assert told == {"proxy_alpha": 0.5, "proxy_amateur_alpha": 0.5, "proxy_expert": "charts"}

    def test_the_list_of_models_has_each_expert(self, guided, served):
        listed = [card["id"] for card in guided.get("/v1/models").json()["data"]]
        assert listed == [served, f"{served}@0", *(f"{served}+{name}" for name in ("expert", "charts", "math"))]
        for name in (*listed, f"{served}+math@0.8"):
            assert guided.get(f"/v1/models/{name}").json()["id"] == name
        assert guided.get(f"/v1/models/{served}+maths").status_code == 404

    @pytest.mark.parametrize(
        ("name", "said", "sentence"),
        [
            ("+maths", {}, "proxy_expert is 'maths', and this server's experts are expert, charts, math: name one"),
            (
                "+math",
                {"proxy_expert": "charts"},
                "the name of the model says the expert math and proxy_expert 'charts'",
            ),
            ("+math@1", {"proxy_alpha": 2}, "the name of the model says a strength of 1 and proxy_alpha 2"),
            ("+math", {"proxy_experts": {"charts": 1}}, "leave proxy_expert out"),
            ("@1", {"proxy_experts": {"charts": 1}}, "leave proxy_alpha out"),
            ("+", {}, "with a + or an @ it has to be NAME"),
        ],
    )
    def test_what_it_cant_say_is_a_400(self, guided, served, name, said, sentence):
        response = guided.post("/generate", body("Hi", said) | {"model": served + name})
        assert response.status_code == 400 and sentence in response.json()["error"]["message"]

    def test_name_and_field_may_agree(self, guided, served):
        said = {"proxy_expert": "math", "proxy_alpha": 2}
        assert guided.post("/generate", body("Hi", said) | {"model": f"{served}+math@2"}).ok

    def test_an_answer_says_its_experts(self, guided):
        meta = guided.generate(**body("Hi", {"proxy_experts": {"charts": 0.3, "math": 0.4}}))["meta_info"]
        assert meta["proxy_experts"] == {"math": 0.4, "charts": 0.3} and meta["proxy_alpha"] is None

    def test_a_program_says_them(self, guided):
        @sgl.function
        def tell(s, expert, experts):
            s += "Tell " + proxy_gen("one", expert=expert, alpha=1.5, max_tokens=TOKENS, temperature=0, ignore_eos=True)
            s += proxy_gen("several", experts=experts, max_tokens=2, temperature=0)
            s += proxy_gen("choice", experts=experts, choices=["a", "b"])

        # A backend's own strength is for calls that say none.
        state = tell.run("charts", {"math": 1.0, "charts": 1.0}, backend=ProxyBackend(guided.url, default_alpha=0.2))
        direct = guided.generate(**body("Tell ", {"proxy_expert": "charts", "proxy_alpha": 1.5}))
        assert state["one"] == direct["text"] and state.get_meta_info("one")["proxy_expert"] == "charts"
        assert state.get_meta_info("several")["proxy_experts"] == {"math": 1.0, "charts": 1.0}
        assert state["choice"] in ("a", "b")
