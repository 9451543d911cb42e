"""No request breaks a law of the server: a share of `python -m benchmarks.fuzz`, the same requests each time.

The laws and the requests are in `benchmarks/fuzz`; `docs/robustness.md` tells how to run more of them. The server is
one of its own: a neighbour of the fuzzer may see no other client.
"""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from benchmarks.fuzz.__main__ import FLAGS, main
from benchmarks.fuzz.bodies import ABSURD, GENERATING, MAX_N, MAX_TOKENS, bodies_of, bounded
from benchmarks.fuzz.campaign import Campaign, report, shrink
from benchmarks.fuzz.declared import bodies
from benchmarks.fuzz.exchange import Answer, Request
from benchmarks.fuzz.laws import judge
from benchmarks.fuzz.values import some_fields
from benchmarks.local_server import named_models, serving
from documented import SERVED_AT, block, commands

REQUESTS = 600  # two to three minutes on two cores
SEED = 15


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    with serving(named_models("random", folder), *FLAGS, log=folder / "log") as server:
        yield server


@pytest.mark.xdist_group("fuzz")
def test_no_request_breaks_a_law(server):
    campaign = Campaign(server)
    campaign.run(REQUESTS, SEED)
    assert not campaign.faults, report(campaign.faults)
    # A fuzzer that is always refused tries nothing.
    assert campaign.statuses["200"] > REQUESTS / 10, campaign.statuses


@pytest.mark.xdist_group("fuzz")
def test_the_pages_commands_fuzz(server, monkeypatch, tmp_path):
    """A few requests of each, to the server that is here where the page's command would start one."""
    page = "docs/robustness.md"
    out, few = tmp_path / "fuzz.jsonl", {"10000": "8", "1000": "8"}
    here = {SERVED_AT: server.url, "MAIN_PROCESS": str(server.processes[0].pid), "results/fuzz.jsonl": str(out), **few}
    for each in commands(page, block(page, "python -m benchmarks.fuzz")):
        words = [here.get(word, word) for word in each.words[2:]]
        monkeypatch.setattr("sys.argv", words if "--url" in words else [*words, "--url", server.url])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code, each
    assert out.read_text().count("\n") == 1


class InPydantic(BaseModel):
    never_named: int = 0


class InMsgspec(msgspec.Struct):
    never_named: int = 0


@dataclasses.dataclass
class InDataclass:
    never_named: int = 0


@pytest.mark.parametrize("kind", [InPydantic, InMsgspec, InDataclass])
def test_a_new_field_is_fuzzed_with_right_and_wrong_values(kind):
    fields = some_fields(kind)
    find(fields, lambda body: body.get("never_named") == 5)
    find(fields, lambda body: isinstance(body.get("never_named"), list))


@pytest.mark.parametrize("path", GENERATING)
def test_bodies_ask_for_little_or_for_something_absurd(path, sglang):
    @settings(max_examples=200, database=None, derandomize=True)
    @given(bodies_of(path, bodies()["POST", path]))
    def asks_for_little(body):
        for name, value in members(body):
            if isinstance(value, int | float) and not isinstance(value, bool):
                most = {"n": MAX_N, "best_of": MAX_N}.get(name) or (
                    "token" in name and name.startswith("max") and MAX_TOKENS
                )
                assert not most or name == "max_thinking_tokens" or not most < value < ABSURD, (name, value)

    asks_for_little()


def test_a_body_without_a_limit_gets_one():
    assert bounded("/generate", {"text": "Hi"})["sampling_params"]["max_new_tokens"] <= MAX_TOKENS
    assert bounded("/v1/chat/completions", {"messages": [], "max_tokens": None})["max_tokens"] <= MAX_TOKENS


def members(body):
    """Names and values of a body and of the options in it, which is where limits stand."""
    if isinstance(body, list):
        for each in body:
            yield from members(each)
    elif isinstance(body, dict):
        for name, value in body.items():
            yield name, value
            if name in ("sampling_params", "parameters", "options"):
                yield from members(value)


@pytest.mark.parametrize(
    "answer, law",
    [
        (Answer(200, '{"a": 1}', 0.1), None),
        (Answer(400, '{"message": "n is 0: it takes 1 to 128."}', 0.1), None),
        (Answer(500, "Internal Server Error", 0.1), "no 500"),
        (Answer(200, '{"a": 1}', 31.0), "no answer after more than 30 s"),
        (Answer(None, "", 0.1, "RemoteDisconnected: "), "every request is answered"),
        (Answer(400, "<_io.BytesIO object at 0x7f3a>", 0.1), "an error is for people"),
        (Answer(400, "one of 25 errors " * 200, 0.1), "an error is for people"),
        (Answer(200, 'data: {"text": "a"}\n\n', 0.1), "a stream has an end"),
        (Answer(200, '{"logprob": -Infinity}', 0.1), "an answer is JSON"),
    ],
)
def test_a_law_is_seen_to_be_broken(answer, law, sglang):
    fault = judge(Request.of_json("POST", "/generate", {}), answer)
    assert (fault and fault.law) == law


def test_a_failing_body_is_made_smaller(sglang):
    def breaks(request: Request):
        body = request.body
        is_broken = isinstance(body, dict) and body.get("sampling_params", {}).get("n") == -7
        return judge(request, Answer(500, "Internal Server Error", 0.1)) if is_broken else None

    body = {"text": "Hi", "rid": "a", "sampling_params": {"n": -7, "top_p": 1}, "image_data": ["a" * 500]}
    request = Request.of_json("POST", "/generate", body)
    assert shrink(request, breaks(request).kind, breaks).body == {"sampling_params": {"n": -7}}


def test_the_same_seed_draws_the_same_requests(sglang):
    def drawn() -> list:
        seen = []

        @settings(max_examples=30, database=None, derandomize=True)
        @given(st.sampled_from(GENERATING).flatmap(lambda path: bodies_of(path, bodies()["POST", path])))
        def draw(body):
            seen.append(repr(body))

        draw()
        return seen

    assert drawn() == drawn()
