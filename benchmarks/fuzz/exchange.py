"""One request of the fuzzer and what came back, in time or not."""

from __future__ import annotations

import http.client
import json
import shlex
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

ANSWER_WITHIN_S = 30
CHUNK_BYTES = 65_536


@dataclass(frozen=True)
class Request:
    """What is sent."""

    method: str
    path: str
    data: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    leave_after: int | None = None  # the client goes after so many reads of the answer; None: it stays
    leave_after_s: float | None = None  # or after so many seconds

    @classmethod
    def of_json(cls, method: str, path: str, body: Any, **options: Any) -> Request:
        """Infinity, NaN and lone surrogates are sent as JSON's readers in Python take them."""
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        return cls(method, path, json.dumps(body).encode(), headers, **options)

    @property
    def body(self) -> Any:
        """The JSON that is sent; None where it is no JSON."""
        try:
            return json.loads(self.data or b"")
        except (ValueError, RecursionError):
            return None

    def curl(self) -> str:
        """A command line that sends it to $U."""
        words = ["curl", "-sS", "-m", str(ANSWER_WITHIN_S), "-X", self.method]
        words += [word for name, value in self.headers.items() for word in ("-H", f"{name}: {value}")]
        if self.data is not None:
            words += ["--data-binary", self.data.decode(errors="backslashreplace")]
        return f'{shlex.join(words)} "$U"{shlex.quote(self.path)}'


@dataclass(frozen=True)
class Answer:
    """What came back; `status` is None where nothing did."""

    status: int | None
    text: str
    seconds: float
    error: str = ""  # the connection's, or that time was over
    left: bool = False  # the client went before the end

    @property
    def is_late(self) -> bool:
        return self.seconds > ANSWER_WITHIN_S


def send(url: str, request: Request) -> Answer:
    """Send a request over a connection of its own."""
    where = urlsplit(url)
    patience = ANSWER_WITHIN_S + 1 if request.leave_after_s is None else request.leave_after_s
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=patience)
    begin, status, chunks = time.monotonic(), None, []

    def answer(error: str = "", left: bool = False) -> Answer:
        text = b"".join(chunks).decode(errors="replace")
        return Answer(status, text, time.monotonic() - begin, error, left)

    try:
        connection.request(request.method, request.path, request.data, request.headers)
        if request.leave_after == 0:
            return answer(left=True)
        response = connection.getresponse()
        status = response.status
        while chunk := response.read1(CHUNK_BYTES):
            chunks.append(chunk)
            if request.leave_after is not None and len(chunks) >= request.leave_after:
                return answer(left=True)
            if time.monotonic() - begin > patience:
                return answer("no end of the answer in time", left=request.leave_after_s is not None)
        return answer()
    except TimeoutError as error:
        return answer(f"{type(error).__name__}: {error}", left=request.leave_after_s is not None)
    except (OSError, http.client.HTTPException) as error:
        return answer(f"{type(error).__name__}: {error}")
    finally:
        connection.close()
