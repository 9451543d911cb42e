"""Requests of a day: chats that must be answered, clients that go, aborts, and requests that must be refused."""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator
from typing import Any

from benchmarks.fuzz.exchange import Answer, Request
from sgl_proxythinker.programs.pictures import data_url, random_picture

CHAT = "/v1/chat/completions"
SIZES = ((84, 84), (112, 84), (84, 140), (168, 112))  # pixels
QUESTIONS = ("What is shown?", "How many objects are there?", "Which of the two is the larger one? Think about it.",
             "Look at every picture, count what you see, and say it in order. " * 3)  # fmt: skip
GRAMMARS = (
    {"regex": "(yes|no|[0-9]{1,3})"},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {
        "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}},
    {"ebnf": 'root ::= [a-z]+ " " [a-z]+'},
)  # fmt: skip
TOO_LONG = "longer than the context"  # stands for a text that is
REFUSED: tuple[dict[str, Any], ...] = (
    {"temperature": -1}, {"top_p": 2}, {"max_tokens": "many"}, {"regex": "("}, {"messages": []}, {"messages": "Hi"},
    {"custom_params": {"proxy_alpha": "strong"}}, {"custom_params": {"proxy_alpha": 1e9}}, {"logit_bias": {"a": 1}},
    {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]},
    {"messages": [{"role": "user", "content": TOO_LONG}]},
)  # fmt: skip


class Kind(enum.Enum):
    """What a client does."""

    ANSWERED = "answered"
    LEAVING = "leaving"
    ABORTED = "aborted"
    REFUSED = "refused"

    def allows(self, answer: Answer) -> bool:
        """Whether an answer is one that such a client may get."""
        if self is Kind.LEAVING:
            return answer.left or answer.status == 200
        if self is Kind.REFUSED:
            return answer.status == 400
        if self is Kind.ABORTED:
            return answer.status is not None and answer.status < 500
        return answer.status == 200 and not answer.error and '"code":5' not in answer.text


def first_requests(pictures: int) -> list[Request]:
    """One of each kind of work: on a fresh machine the first of some waits a minute for a kernel to be compiled."""
    chance = random.Random(0)
    forms = ({}, {"temperature": 1}, {"temperature": 1, "n": 3, "logprobs": True, "top_logprobs": 5}, *GRAMMARS)
    chat = {"model": "default", "max_tokens": 8, "temperature": 0}
    return [
        Request.of_json("POST", CHAT, {**chat, "messages": conversation(chance, pictures + number), **form})
        for number, form in enumerate(forms)
    ]


def fill_requests(pictures: int) -> Iterator[Request]:
    """A short chat about each picture, greedy and sampled in turn."""
    for picture in range(pictures):
        messages = [{"role": "user", "content": [picture_part(picture), {"type": "text", "text": QUESTIONS[0]}]}]
        body = {"model": "default", "max_tokens": 1 + picture % 2, "temperature": picture % 2, "messages": messages}
        yield Request.of_json("POST", CHAT, body)


def draw(chance: random.Random, number: int, pictures: int, context_length: int) -> tuple[Kind, Request]:
    """The next request of a client.

    Args:
        chance: of this client.
        number: of the request, of all clients together; decides which picture.
        pictures: how many different ones there are.
        context_length: the server's, in tokens.
    """
    kind = chance.choices(tuple(Kind), (70, 12, 8, 10))[0]
    body: dict[str, Any] = {
        "model": "default",
        "messages": conversation(chance, number % pictures),
        "max_tokens": chance.randint(1, 32),
        "temperature": chance.choice((0, 0, 1)),
        "stream": chance.random() < 0.5,
        "n": chance.choice((1, 1, 1, 2, 3)),
        "custom_params": {"proxy_alpha": chance.choice((0.5, 0))},
    }
    if kind is Kind.REFUSED:
        wrong = chance.choice(REFUSED)
        if wrong.get("messages") == [{"role": "user", "content": TOO_LONG}]:
            wrong = {"messages": [{"role": "user", "content": "a " * (2 * context_length)}]}
        return kind, Request.of_json("POST", CHAT, body | wrong)
    if chance.random() < 0.15:
        body |= chance.choice(GRAMMARS)
    if chance.random() < 0.2:
        body |= {"logprobs": True, "top_logprobs": chance.randint(0, 5)}
    if kind is Kind.ABORTED:
        body |= {"rid": f"soak-{number}-{chance.random()}", "max_tokens": 200, "n": 1}
    if kind is Kind.LEAVING:
        return kind, Request.of_json("POST", CHAT, body | {"max_tokens": 200}, leave_after_s=chance.uniform(0.001, 1.5))
    return kind, Request.of_json("POST", CHAT, body)


def picture_part(picture: int) -> dict[str, Any]:
    """One of the different pictures, as a part of a message."""
    form = "JPEG" if picture % 3 else "PNG"
    url = data_url(random_picture(picture, *SIZES[picture % len(SIZES)]), form)
    return {"type": "image_url", "image_url": {"url": url}}


def conversation(chance: random.Random, picture: int) -> list[dict[str, Any]]:
    """One to three turns; seven of eight begin with a picture of random colours."""
    content: list[dict[str, Any]] = [{"type": "text", "text": chance.choice(QUESTIONS)}]
    if chance.random() < 7 / 8:
        content.insert(0, picture_part(picture))
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    for _ in range(chance.choice((0, 0, 1, 2))):
        messages.append({"role": "assistant", "content": "The answer is two."})
        messages.append({"role": "user", "content": chance.choice(QUESTIONS)})
    return messages
