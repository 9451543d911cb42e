"""What guidance must not change: strength 0 and equal proxies are plain SGLang."""

import pytest

from cases import Case, ask_all, mixed_cases
from servers import picture

pytestmark = pytest.mark.xdist_group("guided")

GREEDY = {"temperature": 0, "max_new_tokens": 16}


def texts(answers: list[dict]) -> list[str]:
    return [answer["choices"][0]["message"]["content"] for answer in answers]


def test_alpha_zero_serves_the_same_tokens_as_plain_sglang(guided, plain):
    """Rows at alpha 0 share batches with guided ones here, and with nothing there."""
    cases = mixed_cases()
    served = texts(ask_all(guided, cases))
    unguided = [index for index, case in enumerate(cases) if case.alpha == 0.0]
    alone = texts(ask_all(plain, [cases[index] for index in unguided]))
    assert [served[index] for index in unguided] == alone


def test_a_plain_server_says_so_and_refuses_to_guide(plain):
    assert plain.get("/server_info").json()["proxy"] is None
    assert plain.get("/model_info").json()["proxy"] is None
    assert "serving plain SGLang" in plain.log_text()
    body = {"text": "Hi", "sampling_params": {**GREEDY, "custom_params": {"proxy_alpha": 0.5}}}
    response = plain.post("/generate", body)
    assert response.status_code == 400 and "base model alone" in response.text
    body["sampling_params"]["custom_params"] = {"proxy_trace": True}
    response = plain.post("/generate", body)
    assert response.status_code == 400 and "there is no expert whose influence proxy_trace could show" in response.text
    body["sampling_params"]["custom_params"] = {"proxy_trace": False}
    assert "proxy_trace" not in plain.generate(**body)["meta_info"]
    meta = plain.generate(text="Hi", sampling_params=GREEDY)["meta_info"]
    assert (meta["proxy_alpha"], meta["proxy_amateur_alpha"]) == (0.0, 0.0)


def test_a_plain_server_keeps_sglangs_routes(plain):
    assert "label_token_ids" in plain.post("/v1/score", {"query": "a", "items": ["b"]}).text


def test_prompt_logprobs_at_alpha_zero_are_the_bases(guided, plain):
    body = {"text": "Hello you", "return_logprob": True, "logprob_start_len": 0}
    params = {**GREEDY, "custom_params": {"proxy_alpha": 0}}
    ours, theirs = (
        server.generate(**body, sampling_params=params)["meta_info"]["input_token_logprobs"]
        for server in (guided, plain)
    )
    assert [logprob for logprob, *_ in ours[1:]] == pytest.approx([logprob for logprob, *_ in theirs[1:]], abs=1e-4)


def test_a_guided_prefix_is_a_good_prefix_for_alpha_zero_and_the_other_way_round(guided, plain):
    """One tree: whoever computes a prefix, all three models have its keys and values."""
    image = picture(71)
    for first, second in ((0.0, 1.5), (1.5, 0.0)):
        guided.post("/flush_cache", None)
        ask_all(guided, [Case("Which?", (image,), first)])
        [warm] = ask_all(guided, [Case("Which?", (image,), second)])
        guided.post("/flush_cache", None)
        [cold] = ask_all(guided, [Case("Which?", (image,), second)])
        assert texts([warm]) == texts([cold])
        assert warm["choices"][0]["meta_info"]["cached_tokens"] > 0
