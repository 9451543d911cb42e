"""`proxy_trace`: what each model said of each token, to the request that asked and to no other."""

from __future__ import annotations

import json
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import sglang as sgl
from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint

from cases import logprob_tolerance
from servers import ON_GPU, chat_messages
from sgl_proxythinker import ProxyBackend, proxy_gen
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.programs.pictures import data_url, random_picture
from sgl_proxythinker.requests.trace_format import FIELDS
from trace_oracle import assert_is_the_oracles

pytestmark = pytest.mark.xdist_group("guided")

PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
LONG = "Look at every picture, count what you see, and say it in order. " * 4


def params(alpha: float | None = 1.5, trace: object = True, **options) -> dict:
    custom = {"proxy_alpha": alpha, "proxy_trace": trace}
    custom = {key: value for key, value in custom.items() if value is not None}
    return {"temperature": 0, "max_new_tokens": 12, "custom_params": custom, **options}


def assert_complete(answer: dict) -> dict:
    """The trace has every list, each with an element per token."""
    trace, tokens = answer["meta_info"]["proxy_trace"], answer["output_ids"]
    assert tuple(trace) == FIELDS
    assert {name: len(values) for name, values in trace.items()} == dict.fromkeys(FIELDS, len(tokens))
    assert trace["token_id"] == tokens
    return trace


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 3.0])
@pytest.mark.parametrize("images", [0, 2], ids=["text", "pictures"])
def test_it_is_what_the_oracle_says(guided, reference, alpha, images):
    """The prompts are prefilled in several chunks, and once more from the cache."""
    pictures, text = [random_picture(71), random_picture(72, 112, 56)][:images], PLACE * images + LONG
    guided.flush_cache()
    for _ in ("cold", "cached"):
        answer = guided.generate(
            text=[text], image_data=[[data_url(one) for one in pictures]] if images else None,
            sampling_params=params(alpha),
        )[0]  # fmt: skip
        trace = assert_complete(answer)
        assert_is_the_oracles(trace, reference, text, pictures, alpha)
        assert any(trace["flipped"]) is (alpha != 0), "only guidance flips a greedy choice"


def test_expert_and_amateur_are_told_apart_with_weights_of_their_own(guided, reference):
    asked = params(0.5)
    asked["custom_params"]["proxy_amateur_alpha"] = 0
    trace = assert_complete(guided.generate(text="Tell", sampling_params=asked))
    assert_is_the_oracles(trace, reference, "Tell", [], 0.5, amateur_alpha=0.0)


def test_it_shows_the_models_before_whatever_shapes_the_sampling(guided, reference):
    """Temperature, penalties, bias, top-k and a grammar change the choice, not the evidence."""
    shapes = [
        {"temperature": 20.0, "top_k": 40},  # at 1.7 all twelve were once the greedy ones
        {"frequency_penalty": 1.9, "presence_penalty": 1.0},
        {"logit_bias": {"65": 100.0}},
        {"regex": r"[0-9]{6}"},
        {"json_schema": json.dumps({"type": "array", "items": {"type": "integer"}, "maxItems": 3})},
    ]
    answers = [guided.generate(text="Count", sampling_params=params(2.0, **shape)) for shape in ({}, *shapes)]
    assert len({tuple(answer["output_ids"]) for answer in answers}) == len(answers), "each must change the choice"
    for answer in answers:
        assert_is_the_oracles(assert_complete(answer), reference, "Count", [], 2.0)
    assert re.fullmatch(r"[0-9]{6}", answers[4]["text"])


def test_only_the_request_that_asked_gets_it_and_each_its_own(guided, reference):
    """Requests of different lengths share steps: some ask, some don't, some say no."""
    prompts = [f"Say number {index} " + "please " * (index % 5) for index in range(12)]
    wishes = [(True, None, False)[index % 3] for index in range(12)]
    alphas = [index / 4 for index in range(12)]

    def ask(index):
        asked = params(alphas[index], wishes[index], max_new_tokens=8 + 3 * index, ignore_eos=True)
        return guided.generate(text=prompts[index], sampling_params=asked)

    with ThreadPoolExecutor(len(prompts)) as pool:
        answers = list(pool.map(ask, range(len(prompts))))
    for prompt, wish, alpha, answer in zip(prompts, wishes, alphas, answers, strict=True):
        assert ("proxy_trace" in answer["meta_info"]) is (wish is True)
        if wish:
            assert_is_the_oracles(assert_complete(answer), reference, prompt, [], alpha)


def test_a_batch_of_prompts_asks_each_for_itself(guided):
    answers = guided.generate(text=["Tell"] * 3, sampling_params=[params(1.0, wish) for wish in (True, None, True)])
    assert ["proxy_trace" in answer["meta_info"] for answer in answers] == [True, False, True]
    one, other = assert_complete(answers[0]), assert_complete(answers[2])
    for name in FIELDS:
        assert one[name] == pytest.approx(other[name], abs=logprob_tolerance())


def test_asking_changes_no_token(guided):
    for shape in ({}, {"regex": r"[a-z ]{12}"}):
        with_trace, without = (
            guided.generate(text="Go", sampling_params=params(2.0, t, **shape)) for t in (True, None)
        )
        assert with_trace["output_ids"] == without["output_ids"]


def test_the_last_chunk_of_a_stream_carries_the_trace(guided):
    """Kills: a trace that is sent again with every token, 157 MB for 2,048 of them."""
    long = params(2.0, max_new_tokens=100, ignore_eos=True)  # who is slow gets several tokens in a chunk
    body = {"text": "Hi", "stream": True, "sampling_params": long}
    guided.flush_cache()  # in 16 bits a prompt from the cache has not quite the same numbers
    response = guided.post("/generate", body, stream=True)
    events = [line[6:] for line in response.iter_lines(decode_unicode=True) if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    guided.flush_cache()
    whole = assert_complete(guided.generate(text="Hi", sampling_params=params(2.0, ignore_eos=True)))
    assert len(chunks) > 2 and not any("proxy_trace" in chunk["meta_info"] for chunk in chunks[:-1])
    assert all(chunk["meta_info"]["proxy_alpha"] == 2.0 for chunk in chunks)
    last = assert_complete(chunks[-1])
    first = slice(len(whole["token_id"]))
    assert last["token_id"][first] == whole["token_id"]
    assert last["js_nats"][first] == pytest.approx(whole["js_nats"], abs=1e-3 if ON_GPU else 1e-5)


def test_what_ends_an_answer_ends_its_trace(guided, reference):
    """Stop strings and ids, the length, an answer of no token."""
    free = guided.generate(text="Hi", sampling_params=params())
    stop_id = free["output_ids"][3]
    stop = reference.tokenizer.decode(free["output_ids"][5:6])
    for options in ({"stop_token_ids": [stop_id]}, {"stop": [stop]}, {"max_new_tokens": 1}, {"max_new_tokens": 0}):
        answer = guided.generate(text="Hi", sampling_params=params(**options))
        assert len(assert_complete(answer)["token_id"]) < 12
        assert answer["output_ids"] == free["output_ids"][: len(answer["output_ids"])]


def test_each_of_several_samples_has_its_own(guided, reference):
    # Shorter ones may be alike.
    asked = params(1.0, temperature=1.0, n=3, max_new_tokens=40, ignore_eos=True)
    answers = guided.generate(text="Say", sampling_params=asked)
    assert len({tuple(answer["output_ids"]) for answer in answers}) == 3
    for answer in answers:
        assert_is_the_oracles(assert_complete(answer), reference, "Say", [], 1.0)


def test_chat_returns_it_with_meta_info(guided, reference):
    messages, pictures = chat_messages("What is it?", [random_picture(8)]), [random_picture(8)]
    extra = {"custom_params": {"proxy_alpha": 1.5, "proxy_trace": True}}
    answer = guided.chat(messages, None, n=2, temperature=0.9, logprobs=True, extra_body=extra)
    for choice in answer["choices"]:
        trace = choice["meta_info"]["proxy_trace"]
        assert_is_the_oracles(trace, reference, messages, pictures, 1.5)
        # SGLang's logprobs are those of the distribution that was drawn from, at temperature 0.9.
        assert len(choice["logprobs"]["content"]) == len(trace["token_id"])
    greedy = guided.chat(messages, None, logprobs=True, extra_body=extra)["choices"][0]
    told = [one["logprob"] for one in greedy["logprobs"]["content"]]
    assert greedy["meta_info"]["proxy_trace"]["fused_logprob"] == pytest.approx(told, abs=logprob_tolerance(1.5))
    assert "proxy_trace" not in guided.chat(messages, 1.5)["choices"][0]["meta_info"]


@pytest.mark.parametrize("wish", ["yes", 1, 0, [], {"a": 1}])
def test_a_wish_that_is_neither_yes_nor_no_is_a_400(guided, wish):
    response = guided.post("/generate", {"text": "x", "sampling_params": params(1.0, wish)})
    assert response.status_code == 400 and "proxy_trace is" in response.text and "send true" in response.text
    with pytest.raises(openai.BadRequestError, match="proxy_trace is"):
        guided.chat(chat_messages("x"), None, extra_body={"custom_params": {"proxy_trace": wish}})


# Programs


@pytest.fixture(scope="module")
def backend(guided):
    return ProxyBackend(guided.url)


@sgl.function
def seen(s, alpha):
    s += "Count"
    s += proxy_gen("shown", alpha=alpha, trace=True, max_tokens=8, temperature=0)
    s += proxy_gen("hidden", alpha=alpha, max_tokens=8, temperature=0)


@pytest.mark.parametrize(("alpha", "default_alpha", "in_force"), [(3.0, 0, 3.0), (None, 2.5, 2.5), (None, None, 0.5)])
@pytest.mark.parametrize("stream", [False, True])
def test_programs_ask_call_by_call(guided, reference, alpha, default_alpha, in_force, stream):
    state = seen.run(alpha, backend=ProxyBackend(guided.url, default_alpha=default_alpha), stream=stream)
    state.sync()
    meta = state.get_meta_info("shown")
    assert meta["proxy_alpha"] == in_force
    assert_is_the_oracles(meta["proxy_trace"], reference, "Count", [], in_force)
    assert len(meta["proxy_trace"]["token_id"]) == 8
    assert "proxy_trace" not in state.get_meta_info("hidden")


def test_what_has_no_trace_says_so(guided):
    with pytest.raises(RequestError, match="choices are scored.* leave trace or choices out"):
        proxy_gen("choice", alpha=1.0, trace=True, choices=["a", "b"])
    with pytest.raises(RequestError, match="proxy_trace is 'yes'"):
        proxy_gen("answer", trace="yes")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Error in stream_executor")
        state = seen.run(None, backend=RuntimeEndpoint(guided.url))
        state.sync()
    assert "a trace needs sgl_proxythinker.ProxyBackend" in str(state.error())
