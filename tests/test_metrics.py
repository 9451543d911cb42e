"""`/metrics` counts what was asked: rows that were guided or not, traced ones, strengths, refusals by their kind."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import requests

import servers
from documented import as_it_stands, assert_started_so, block
from live_metrics import counting, samples_of
from sgl_proxythinker.metrics.refusals import REASONS
from sgl_proxythinker.programs.pictures import data_url, random_picture

pytestmark = pytest.mark.xdist_group("guided")

ROWS, TRACED = "sglang:proxy_rows_total", "sglang:proxy_traced_rows_total"
STRENGTH, REFUSED = "sglang:proxy_strength", "sglang:proxy_refused_requests_total"
MODEL_SECONDS, FUSED_SECONDS = "sglang:proxy_model_forward_seconds", "sglang:proxy_fused_forward_seconds"
TOKENS = 24
PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"


def test_the_page_shows_how_to_see_them(server, triple, tmp_path):
    models = {
        "Qwen/Qwen2.5-VL-32B-Instruct": triple.base,
        "TIGER-Lab/VL-Rethinker-7B": triple.expert,
        "Qwen/Qwen2.5-VL-7B-Instruct": triple.amateur,
    }
    assert_started_so(server, block("docs/metrics.md", "python -m sglang.launch_server"), models)
    assert f"\n{ROWS}{{" in as_it_stands(block("docs/metrics.md", "curl -s http"), tmp_path, server)


def ask(server, **custom_params):
    params = {"temperature": 0, "max_new_tokens": TOKENS, "ignore_eos": True, "custom_params": custom_params or None}
    # Its first tokens are read by no other request, whatever is in the tree.
    return server.generate(text=f"{random.random()} Hi", sampling_params=params)


@pytest.fixture(scope="module")
def server(guided):
    """A server that rests, and has answered once."""
    ask(guided)
    guided.flush_cache()
    return guided


def assert_rows(grown, guided: str, requests: int = 1):
    """One row of prefill and one of each step after it; with overlap a step more, whose token nobody gets."""
    assert grown(ROWS, guided=guided, phase="prefill") == requests
    decoded, chains = (grown(ROWS, guided=guided, phase=phase) for phase in ("decode", "verify"))
    if servers.speculate:
        assert decoded + chains >= (TOKENS - 1) * requests / 8
    else:
        assert (TOKENS - 1) * requests <= decoded <= TOKENS * requests and not chains
    other = "false" if guided == "true" else "true"
    assert grown(ROWS, guided=other) == 0


def test_rows_of_a_guided_request_are_guided(server):
    with counting(server) as grown:
        ask(server, proxy_alpha=0.5)
    assert_rows(grown, "true")
    assert grown(TRACED) == 0


def test_rows_at_alpha_0_are_the_bases_alone(server):
    with counting(server) as grown:
        ask(server, proxy_alpha=0)
    assert_rows(grown, "false")


def test_traced_rows_are_counted_guided_or_not(server):
    with counting(server) as grown:
        ask(server, proxy_alpha=0, proxy_trace=True)
    assert_rows(grown, "false")
    assert grown(TRACED) == grown(ROWS)


def test_rows_of_one_batch_are_told_apart(server):
    """Kills: a step that counts as its first request does."""
    alphas = [0.5, 0.0, 0.0]
    params = [{"temperature": 0, "max_new_tokens": 4, "custom_params": {"proxy_alpha": alpha}} for alpha in alphas]
    with counting(server) as grown:
        server.generate(text=["One", "Two", "Three"], sampling_params=params)
    if servers.speculate:
        assert [grown(ROWS, guided=told, phase="prefill") for told in ("true", "false")] == [1, 2]
    else:  # chunks of prompts are read beside those that decode: a row more of each with overlap
        assert grown(ROWS, guided="true") in (4, 5) and grown(ROWS, guided="false") in (8, 9, 10)


def test_strengths_are_counted_for_each_expert_that_steers(server):
    law = {"kind": "schedule", "points": [[0, 1.25], [10, 0.0]]}
    with counting(server) as grown:
        ask(server)  # the server's own, 0.5
        ask(server, proxy_alpha=-0.75)
        ask(server, proxy_alpha=0)
        ask(server, proxy_experts={"math": 0.2, "charts": 1.75})
        ask(server, proxy_law=law)
        # Each prompt counts, and its answers don't.
        params = {"max_new_tokens": 2, "n": 3, "custom_params": {"proxy_alpha": 3}}
        server.generate(text=["One", "Two"], sampling_params=params)
    assert grown.by(f"{STRENGTH}_count", "expert") == {"expert": 5, "none": 1, "math": 1, "charts": 1}
    at_most = {
        "expert": {"-1.0": 0, "-0.5": 1, "0.25": 1, "0.5": 2, "1.0": 2, "1.5": 3, "2.0": 3, "5.0": 5, "+Inf": 5},
        "none": {"-0.5": 0, "0.0": 1},
        "math": {"0.0": 0, "0.25": 1},
        "charts": {"1.5": 0, "2.0": 1},
    }  # fmt: skip
    for expert, wanted in at_most.items():
        for bound, count in wanted.items():
            assert grown(f"{STRENGTH}_bucket", expert=expert, le=bound) == count, (expert, bound)


def params_of(**params) -> dict:
    return {"text": "Hi", "sampling_params": {"max_new_tokens": 2, **params}}


ENDLESS = params_of(ebnf='root ::= "a" "b" x\nx ::= x', max_new_tokens=8, temperature=0)
REFUSALS = {
    "field": ("/generate", params_of(temperature=-1)),
    "guidance": ("/generate", params_of(custom_params={"proxy_alpha": "strong"})),
    "chat": ("/v1/chat/completions", {"model": "m", "messages": []}),
    "grammar": ("/generate", params_of(json_schema='{"multipleOf": 999983, "type": "integer"}')),
    "picture": ("/generate", {"text": "Hi", "image_data": data_url(random_picture(1)), "sampling_params": {}}),
    "scheduler": ("/generate", ENDLESS),
    "route": ("/v1/score", {}),
    "sglang": ("/generate", {"text": "a " * 40_000, "sampling_params": {}}),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refusal_is_counted_once_by_its_kind(server, reason):
    route, body = REFUSALS[reason]
    with counting(server) as grown:
        response = server.post(route, body)
    assert response.status_code == 400, response.text
    assert grown.by(REFUSED, "reason") == {reason: 1}


IN_A_STREAM = {name: REFUSALS[name][1] for name in ("field", "guidance", "sglang")}
IN_A_STREAM["scheduler"] = params_of(ebnf="root ::= root")  # it is found before the first token


@pytest.mark.parametrize("reason", IN_A_STREAM)
def test_a_refused_stream_is_counted_as_its_answer_would_be(server, reason):
    with counting(server) as grown:
        response = server.post("/generate", {**IN_A_STREAM[reason], "stream": True})
    assert response.status_code == 400, response.text
    assert grown.by(REFUSED, "reason") == {reason: 1}


def test_chats_and_completions_are_refused_for_the_same_reasons(server):
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    with counting(server) as grown:
        answers = [
            server.post("/v1/chat/completions", {**chat, "custom_params": {"proxy_alpha": 99}}),
            server.post("/v1/chat/completions", {**chat, "temperature": "hot"}),
            server.post("/v1/chat/completions", {**chat, "ebnf": ENDLESS["sampling_params"]["ebnf"], "max_tokens": 8}),
            server.post("/v1/completions", {"model": "m@99", "prompt": "Hi"}),
            server.post("/no_such_route", {}),
        ]
    assert [answer.status_code for answer in answers] == [400, 400, 400, 400, 404]
    assert grown.by(REFUSED, "reason") == {"guidance": 2, "field": 1, "scheduler": 1, "route": 1}


def test_what_is_answered_and_a_stream_that_is_left_are_refused_nothing(server):
    with counting(server) as grown:
        ask(server)
        params = {"max_new_tokens": 200, "ignore_eos": True}
        response = server.post("/generate", {"text": "Tell", "stream": True, "sampling_params": params}, stream=True)
        next(response.iter_lines())
        response.close()
    assert grown.by(REFUSED, "reason") == {}


def test_who_has_left_before_an_answer_is_refused_nothing(server):
    """SGLang makes a 400 of it, which nobody gets."""
    params = {"max_new_tokens": 3000, "ignore_eos": True}
    with counting(server) as grown:
        with pytest.raises(requests.ReadTimeout):
            requests.post(f"{server.url}/generate", json={"text": "Tell", "sampling_params": params}, timeout=1)
        server.flush_cache()  # it has been ended
        ask(server)
    assert grown.by(REFUSED, "reason") == {}


def test_every_model_is_timed(server):
    """By now each has run more often than one of its forwards is timed."""
    told = {
        (one.labels["role"], one.labels["phase"]): one.value
        for one in samples_of(server)
        if one.name == f"{MODEL_SECONDS}_count"
    }
    roles = {"base", "expert", "amateur", "math", "charts", "charts-amateur"}
    assert {role for role, _ in told} == roles
    phase = "verify" if servers.speculate else "decode"
    with counting(server) as grown:
        for _ in range(2):
            ask(server, proxy_alpha=0.5)
            ask(server, proxy_alpha=0)
    for role in ("base", "amateur"):
        count, total = (grown(f"{MODEL_SECONDS}_{part}", role=role, phase=phase) for part in ("count", "sum"))
        assert count >= 1 and 0 < total < 60 * count, role
    assert grown(f"{MODEL_SECONDS}_count", role="math") == 0, "nobody has asked for it"
    assert grown(f"{FUSED_SECONDS}_count", phase=phase) >= 1


def test_all_of_ours_are_there_from_the_start_with_the_labels_of_sglang(server):
    ours = [one for one in samples_of(server) if one.name.startswith("sglang:proxy_")]
    [running] = [one for one in samples_of(server) if one.name == "sglang:num_running_reqs"]
    in_steps = set(running.labels)
    own = {
        ROWS: in_steps | {"guided", "phase"},
        TRACED: in_steps,
        "sglang:proxy_broken_rows_total": in_steps,
        MODEL_SECONDS: in_steps | {"role", "phase"},
        FUSED_SECONDS: in_steps | {"phase"},
        STRENGTH: {"model_name", "engine_type", "expert"},
        REFUSED: {"model_name", "engine_type", "reason"},
    }
    for name, labels in own.items():
        found = [
            one for one in ours if one.name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") == name
        ]
        assert found, name
        assert {frozenset(one.labels) - {"le"} for one in found} == {frozenset(labels)}
        assert {one.labels["model_name"] for one in found} == {running.labels["model_name"]}
    assert {one.labels["reason"] for one in ours if one.name == REFUSED} == set(REASONS)
    documented = {line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `sglang:proxy_")}
    assert documented == set(own), "docs/metrics.md has a row for each"


@pytest.mark.parametrize("reason", REASONS)
def test_the_page_says_what_each_reason_is(reason):
    assert f"| `{reason}` | {REASONS[reason]} |" in PAGE.read_text()
