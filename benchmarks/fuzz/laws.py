"""What must hold of every answer, and of the server between answers."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import requests

from benchmarks.fuzz.declared import guarded
from benchmarks.fuzz.exchange import ANSWER_WITHIN_S, Answer, Request
from benchmarks.fuzz.pictures import PLACE
from benchmarks.local_server import Watched
from sgl_proxythinker.programs.pictures import data_url, random_picture

ALPHAS = (0.5, 0.0)
FIXED_TOKENS, NEIGHBOUR_TOKENS = 16, 200
FIXED = (
    {"text": "Which of the two is the larger one?"},
    {"text": f"{PLACE}What is shown in the image?", "image_data": data_url(random_picture(7))},
)
MOST_ERROR_TEXT = 2_500  # the sentence stands in an error twice: SGLang's own place and the OpenAI client's
# What a client must not be told: its body, an address in memory, a path or a line of the server's code.
NOT_FOR_CLIENTS = re.compile(r"object at 0x|File \"|Traceback|site-packages|[A-Za-z0-9+/]{300}")


@dataclass
class Fault:
    """A law that was broken, by whom and how."""

    law: str
    where: str
    detail: str
    curl: list[str] = field(default_factory=list)  # the last is the one it was seen at
    count: int = 1
    sort: str = ""  # what tells it from others of this law and place

    @property
    def kind(self) -> str:
        """Two faults of one kind are told once."""
        return f"{self.law} | {self.where} | {re.sub(r'[0-9a-f]{6,}|[0-9]+', '#', self.sort)[:90]}"


def judge(request: Request, answer: Answer) -> Fault | None:
    """The law that an answer breaks, if any."""
    if broken := _broken(answer) or _unguarded(request, answer):
        law, detail, *sort = broken
        where = f"{request.method} {request.path.split('?')[0][:60]}"
        return Fault(law, where, detail, [request.curl()], sort="".join(sort))
    return None


def _broken(answer: Answer) -> tuple[str, ...] | None:
    """The law, what happened, and what sort of it."""
    if answer.left:
        return None
    if answer.is_late:
        return f"no answer after more than {ANSWER_WITHIN_S} s", f"{answer.seconds:.0f} s, status {answer.status}"
    if answer.status is None or answer.error:
        return "every request is answered", answer.error
    if answer.status >= 500 and answer.status != 501:  # not implemented, says SGLang of a stream of /tokenize
        return "no 500", f"{answer.status} {answer.text[:300]}", answer.text
    if answer.status >= 400:
        if found := NOT_FOR_CLIENTS.search(answer.text):
            return "an error is for people", f"{answer.status} {_around(answer.text, found)}", found.group()[:12]
        if len(answer.text) > MOST_ERROR_TEXT:
            return "an error is for people", f"{answer.status}, {len(answer.text)} characters: {answer.text[:200]}"
        return None
    return _broken_success(answer.text)


def _unguarded(request: Request, answer: Answer) -> tuple[str, ...] | None:
    if answer.status == 200 and (request.method, request.path.split("?")[0]) in guarded():
        return "routes that act on the server need its key", f"200 {answer.text[:200]}"
    return None


def _broken_success(text: str) -> tuple[str, ...] | None:
    if text.startswith(("data: ", "event: ")):
        for error in re.findall(r'"code": ?(5\d\d)', text):
            return "no 500", f"in a stream: {error} {text[-300:]}", text[-300:]
        if "[DONE]" not in text and "message_stop" not in text and '"error"' not in text:
            return "a stream has an end", text[-200:]
    elif text.startswith(("{", "[")):
        try:
            for line in text.splitlines():
                json.loads(line, parse_constant=_refuse)
        except ValueError as error:
            return "an answer is JSON", f"{error}: {text[:200]}"
    return None


def _around(text: str, found: re.Match) -> str:
    return text[max(0, found.start() - 80) : found.start() + 60]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def greedy(url: str, prompt: dict[str, Any], alpha: float, tokens: int, **more: Any) -> requests.Response:
    sampling = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True, "custom_params": {"proxy_alpha": alpha}}
    body = prompt | {"sampling_params": sampling} | more
    return requests.post(f"{url}/generate", json=body, timeout=ANSWER_WITHIN_S, stream=more.get("stream", False))


def fixed_tokens(url: str) -> list[list[int]]:
    """The tokens of the fixed prompts at each strength."""
    return [
        greedy(url, prompt, alpha, FIXED_TOKENS).json()["output_ids"] for prompt in FIXED for alpha in ALPHAS
    ]  # fmt: skip


class Neighbour(threading.Thread):
    """A client that streams the same answer again and again; it must never notice the fuzzer."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.expected = self.stream()
        self.streams = 0
        self.faults: list[Fault] = []
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set() and not self.faults:
            try:
                got = self.stream()
            except (requests.RequestException, ValueError, KeyError) as error:
                got = [repr(error)]
            if got != self.expected and not self._ended.is_set():
                self.faults.append(Fault("the neighbour's tokens are unchanged", "neighbour", f"got {got[-5:]}"))
            self.streams += 1

    def end(self) -> None:
        self._ended.set()
        self.join(ANSWER_WITHIN_S * 2)

    def stream(self) -> list[Any]:
        """The ids of one answer, and its end."""
        with greedy(self.url, {"text": "A neighbour reads a book:"}, 0.5, NEIGHBOUR_TOKENS, stream=True) as response:
            last, end = b"", b""
            for line in response.iter_lines():
                last, end = (line, end) if line.startswith(b"data: {") else (last, line or end)
        return [*json.loads(last[6:])["output_ids"], end.decode()]


class Guard:
    """The server beside the fuzzer's requests: its processes, its health, and answers that may not change."""

    def __init__(self, server: Watched) -> None:
        self.server = server
        self.expected = fixed_tokens(server.url)
        self.neighbour = Neighbour(server.url)
        self.neighbour.start()

    def check(self) -> list[Fault]:
        """All laws of the server at this moment."""
        found = [
            Fault("no process dies", "server", f"ended: {', '.join(ended)}") for ended in [self.server.ended()] if ended
        ]
        try:
            health = requests.get(f"{self.server.url}/health_generate", timeout=ANSWER_WITHIN_S).status_code
            if health != 200:
                found.append(Fault("the server is healthy", "GET /health_generate", str(health)))
            tokens = fixed_tokens(self.server.url)
            if tokens != self.expected:
                found.append(Fault("a fixed greedy prompt is unchanged", "POST /generate", f"{tokens} {self.expected}"))
        except (requests.RequestException, ValueError, KeyError) as error:
            found.append(Fault("the server is healthy", "server", repr(error)[:200]))
        return found + self.neighbour.faults

    def rest(self, within_s: float = 60) -> list[Fault]:
        """End the neighbour; nothing may be held then."""
        self.neighbour.end()
        deadline = time.monotonic() + within_s
        while any(load := self.server.load().values()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return [Fault("KV use is 0 at rest", "GET /v1/loads", str(self.server.load()))] if any(load) else []
