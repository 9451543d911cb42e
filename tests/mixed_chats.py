"""Chats of all kinds asked at once, of which some are left or aborted before their answer is whole."""

from __future__ import annotations

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from servers import Server, chat_messages
from sgl_proxythinker.programs.pictures import random_picture

# What becomes of an answer: it is read to its end; its client goes when it has begun, or before; or the server is told
# to end it when it has begun, or at any moment.
_SHARES = {"read": 70, "left": 10, "left at once": 5, "aborted": 10, "aborted at any moment": 5}
_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
_SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {"regex": "(yes|no|[0-9]{1,12})"},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": _SCHEMA}}},
    {"stop": ["e", "1", " "]},
    {"logit_bias": {"70": 3.0}},
    {"frequency_penalty": 0.7},
    {"presence_penalty": 0.5, "repetition_penalty": 1.2},
    {"logprobs": True, "top_logprobs": 2},
)
_SIZES = ((28, 28), (56, 28), (56, 56))  # pixels: one to four tokens


def ask_mixed_chats(server: Server, count: int, at_once: int) -> Counter[str]:
    """Ask so many chats and see that each answer is what its end allows.

    Texts and pictures, strengths, greedy and sampled, one answer or two, grammars, stop strings, penalties, streams, of
    1 to 24 tokens; what is not read to its end would have 300. The same chats each time.

    Returns:
        How often each way to end was seen, "aborted" only where the server said so.
    """
    chance = random.Random(0)
    chats = [_drawn_chat(chance, number) for number in range(count)]
    with ThreadPoolExecutor(at_once) as clients:
        return Counter(clients.map(lambda chat: _ask(server, *chat), chats))


def _drawn_chat(chance: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    """How it ends, and the body of the request."""
    [way] = chance.choices(list(_SHARES), list(_SHARES.values()))
    pictures = [
        random_picture(chance.randrange(12), *chance.choice(_SIZES)) for _ in range(chance.choice((0, 0, 1, 2)))
    ]
    body = {
        "model": "default",
        "rid": f"mixed-{number}",
        "messages": chat_messages(f"{'word ' * chance.choice((0, 3, 30))}{number % 50}", pictures),
        "custom_params": {"proxy_alpha": chance.choice((0.0, 0.5, 1.5, -1.0))},
        "temperature": chance.choice((0, 1)),
    }
    if way == "read":
        shape, n = chance.choice(_SHAPES), chance.choice((1, 1, 2))
        more = {"max_tokens": chance.choice((1, 4, 11, 24)), "n": n, "stream": chance.random() < 0.4, **shape}
        return way, body | more
    return way, body | {"max_tokens": 300, "ignore_eos": True, "stream": way != "aborted at any moment"}


def _ask(server: Server, way: str, body: dict[str, Any]) -> str:
    if way == "aborted at any moment":
        with ThreadPoolExecutor(1) as other:
            ended = other.submit(_abort, server, body["rid"])
            response = server.post("/v1/chat/completions", body)
            ended.result()
        assert response.status_code < 500, response.text  # it may have been over, or not there yet
        return way
    with server.post("/v1/chat/completions", body, stream=body["stream"]) as response:
        assert response.status_code == 200, f"{response.text}: {body}"
        if way == "left at once":
            return way
        if not body["stream"]:
            _assert_ended([choice["finish_reason"] for choice in response.json()["choices"]], body)
            return way
        lines = (line[6:] for line in response.iter_lines() if line.startswith(b"data: "))
        first = next(lines)
        if way == "left":
            return way
        if way == "aborted":
            _abort(server, body["rid"])
        *events, done = (first, *lines)
    assert done == b"[DONE]", f"the stream broke off: {done!r}"
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    if way == "aborted":
        return way if reasons == ["abort"] else f"not aborted, {reasons}"
    _assert_ended(reasons, body)
    return way


def _assert_ended(reasons: list[str], body: dict[str, Any]) -> None:
    assert len(reasons) == body["n"] and set(reasons) <= {"stop", "length"}, f"{reasons}: {body}"


def _abort(server: Server, rid: str) -> None:
    assert server.post("/abort_request", {"rid": rid}).ok
