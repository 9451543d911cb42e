"""Two guided servers behind a real router: strengths and pictures arrive, and the death of one is survived."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest
import requests
from conftest import of_family

from routers import KINDS, Router, routing, wait_until
from servers import Server, chat_messages, serving
from sgl_proxythinker.programs.server_process import end, reserve_port
from sgl_proxythinker.tiny_family.problems import problems
from sgl_proxythinker.tiny_family.wordings import TEST

pytestmark = pytest.mark.xdist_group("family")

ROUTE = "/v1/chat/completions"
STRENGTHS = (0.0, 0.8)
FIRST, SECOND = problems(TEST, 2)


@pytest.fixture(scope="module")
def port():
    return reserve_port()


@pytest.fixture(scope="module")
def other(family, port, tmp_path_factory):
    """The second replica, started as the first one was."""
    with serving(of_family(), tmp_path_factory.mktemp("replica") / "log", port=port) as server:
        yield server


@pytest.fixture(scope="module")
def name(family):
    return family.get("/v1/models").json()["data"][0]["id"]


def body(name, kind, picture, strength, **options):
    """A greedy question about a picture; the strength is where this router lets it through (docs/fields.md)."""
    said = {"custom_params": {"proxy_alpha": strength}} if kind == "smg" else {}
    model = name if kind == "smg" else f"{name}@{strength:g}"
    asked = {"messages": chat_messages(SECOND.question, [picture]), "temperature": 0, "max_tokens": 128}
    return {"model": model, **asked, **said, **options}


def text_of(response: requests.Response) -> str:
    assert response.ok, response.text
    return response.json()["choices"][0]["message"]["content"]


def cached(response: requests.Response) -> int:
    return response.json()["usage"]["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.parametrize("kind", KINDS)
def test_strengths_and_pictures_arrive_and_caches_are_found_again(family, other, name, kind, tmp_path):
    """The two prompts differ in their picture alone, of which a router that looks for common prefixes sees nothing."""
    pictures = FIRST.picture(), SECOND.picture()
    direct = {
        (at, strength): text_of(family.post(ROUTE, body(name, "smg", picture, strength)))
        for at, picture in enumerate(pictures)
        for strength in STRENGTHS
    }
    base, guided = (
        {text for (_, strength), text in direct.items() if bool(strength) is is_guided} for is_guided in (False, True)
    )
    assert len(guided) == 2 and not base & guided, "these prompts tell pictures and strengths apart"
    for server in (family, other):
        requests.post(f"{server.url}/flush_cache?timeout=60", timeout=90)
    with routing(kind, [family.url, other.url], tmp_path) as router:
        first, again = (
            {key: router.post(ROUTE, body(name, kind, pictures[key[0]], key[1])) for key in direct} for _ in range(2)
        )
        for answers in (first, again):
            assert {key: text_of(response) for key, response in answers.items()} == direct
            for (_, strength), response in answers.items():
                assert f'"proxy_alpha": {strength}' in response.headers["proxy-guidance"]
        for response in again.values():
            assert cached(response) == response.json()["usage"]["prompt_tokens"] - 1


def test_the_death_of_a_replica_costs_its_streams_only_and_it_is_taken_back(family, other, port, name, tmp_path):
    """A stream that was cut off tells no reason of its end; all else is asked again, and answered right."""
    both = [family.url, other.url]
    expected = text_of(family.post(ROUTE, body(name, "smg", SECOND.picture(), 0.8)))
    questions = {kind: body(name, kind, SECOND.picture(), 0.8) for kind in KINDS}
    with contextlib.ExitStack() as routers, ThreadPoolExecutor(8) as pool:

        def before(kind: str, *flags: str) -> Router:
            return routers.enter_context(routing(kind, both, tmp_path, *flags))

        # Some look at no health, so that what is asked next goes to the one that is gone, too.
        blind = {kind: before(kind, "--policy", "round_robin", *checked_each(600)) for kind in KINDS}
        watching = {kind: before(kind, *checked_each(1)) for kind in KINDS}
        streams = {True: [], False: []}  # does the dying one write it?
        for kind, router in blind.items():
            endless = questions[kind] | {"stream": True, "ignore_eos": True, "max_tokens": 1500}
            for _ in both:
                there, lines = running_at(other), router.post(ROUTE, endless, stream=True).iter_lines()
                assert next(lines).startswith(b"data: {")
                streams[running_at(other) > there].append(lines)
        assert all(streams.values())
        # Stopped, it keeps what it is asked: what the other one does not answer lies with it when it dies.
        os.killpg(other.process.pid, signal.SIGSTOP)
        answers = [pool.submit(router.post, ROUTE, questions[kind]) for kind, router in blind.items() for _ in range(3)]
        wait(answers, return_when=FIRST_COMPLETED)
        end(other.process)
        assert [text_of(answer.result()) for answer in answers] == [expected] * len(answers)
        assert not any(map(is_whole, streams[True])) and all(map(is_whole, streams[False]))
        for kind, router in watching.items():
            wait_until(lambda router=router: router.healthy() == {family.url})
            assert text_of(router.post(ROUTE, questions[kind])) == expected
        with serving(of_family(), tmp_path / "again", port=port):
            for kind, router in watching.items():
                wait_until(lambda router=router: router.healthy() == set(both))
                assert [text_of(router.post(ROUTE, questions[kind])) for _ in both] == [expected] * 2


def checked_each(seconds: int) -> tuple[str, ...]:
    once = ("--health-failure-threshold", "1", "--health-success-threshold", "1")
    return "--health-check-interval-secs", str(seconds), *once


def running_at(server: Server) -> int:
    return server.get("/v1/loads").json()["loads"][0]["num_running_reqs"]


def is_whole(lines: Iterator[bytes]) -> bool:
    """Whether a stream says why its answer ended. smg puts an error and `[DONE]` behind one that was cut off."""
    try:
        return any(b'"finish_reason":"length"' in line for line in lines)
    except requests.exceptions.ChunkedEncodingError:
        return False
