"""A strength, a law and cuts that a server was started with: those of every request that doesn't say its own."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_served_laws import (
    IN_FLOAT32,
    LONG,
    SCHEDULE,
    assert_all_differ,
    assert_law_is_the_oracles,
    body,
)

from servers import chat_messages

pytestmark = pytest.mark.xdist_group("with_tools")

ALPHA = 0.75
ENTROPY = {"kind": "entropy", "above": 2.5}


@pytest.fixture(scope="module")
def own(own_law):
    """The server's, as a request says it."""
    return {f"proxy_{name}": value for name, value in own_law.items()} | {"proxy_alpha": ALPHA}


@pytest.fixture(scope="module")
def cuts(own):
    return {name: own[name] for name in ("proxy_clip", "proxy_plausible")}


@IN_FLOAT32
def test_they_are_the_oracles_and_give_way_to_what_a_request_says(with_tools, own, cuts, reference):
    """Kills: a flag that no request gets, a law that stays beside a strength, a cut that goes with it."""
    # What a request says, and what that means with all of it said.
    wishes = [
        ({}, own),
        ({"proxy_alpha": 1.5}, {"proxy_alpha": 1.5} | cuts),
        ({"proxy_alpha": 0.0}, {"proxy_alpha": 0.0} | cuts),
        ({"proxy_law": SCHEDULE}, {"proxy_law": SCHEDULE} | cuts),
        ({"proxy_law": ENTROPY}, {"proxy_law": ENTROPY, "proxy_alpha": ALPHA} | cuts),
        ({"proxy_law": []}, {"proxy_alpha": ALPHA} | cuts),
        ({"proxy_clip": 9.0}, own | {"proxy_clip": 9.0}),
        ({"proxy_plausible": 0}, own | {"proxy_plausible": 0}),
    ]
    asked = [(text, *wish) for text in ("Hi", LONG) for wish in wishes]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda one: with_tools.generate(**body(*one[:2])), asked))
    for answer, (text, _, meant) in zip(answers, asked, strict=True):
        assert_law_is_the_oracles(answer, reference, text, meant)
    assert_all_differ(answers[len(wishes) :])


def test_the_server_and_each_answer_tell_them(with_tools, own, own_law, cuts):
    for route in ("/server_info", "/model_info"):
        told = with_tools.get(route).json()["proxy"]
        assert {name: told[name] for name in ("alpha", *own_law)} == {"alpha": ALPHA, **own_law}
    for said, meant in (
        (None, own | {"proxy_amateur_alpha": ALPHA}),
        ({"proxy_alpha": 0.9}, {"proxy_alpha": 0.9, "proxy_amateur_alpha": 0.9} | cuts),
    ):
        more = {} if said is None else {"custom_params": said}
        chat = {"messages": chat_messages("Hi"), "max_tokens": 2, **more}
        for route, asked in (("/generate", body("Hi", said)), ("/v1/chat/completions", chat)):
            response = with_tools.post(route, asked)
            assert response.ok and json.loads(response.headers["proxy-guidance"]) == meant, response.text


def test_two_weights_beside_the_servers_clip_are_a_400(with_tools):
    response = with_tools.post("/generate", body("Hi", {"proxy_alpha": 1.0, "proxy_amateur_alpha": 0.0}))
    assert response.status_code == 400 and "proxy_clip cuts the difference" in response.text
