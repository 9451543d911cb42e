"""Why a request was refused, as one of a few words: a label of a metric must not hold what clients write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from sgl_proxythinker.requests.call import HttpCall, current

REASONS = {
    "field": "a field or a body that can't be read, is out of range, or would be lost",
    "guidance": "a strength, an expert, a law, a cut or a trace that can't be given",
    "chat": "messages, tools or template arguments that the model's template can't show",
    "grammar": "a grammar that can't be compiled within its bounds, or would not be kept to",
    "picture": "a picture that can't be read or may not be, or places that don't agree with the pictures",
    "scheduler": "what the schedulers found when they took it or ran it: a grammar without an end, and the like",
    "route": "a route that is closed, or that there is not",
    "key": "a route that acts on the server, without its key; what SGLang itself answers with 401 is not among them",
    "size": "a body or a file of too many bytes",
    "busy": "a queue that is full, or grammars of others that are tried",
    "sglang": "SGLang's own checks: a prompt that is longer than the context, and the like",
}

# The longest name counts: of modules of this package, and of rooms of it.
_OF_MODULES = {
    "policy": "field",
    "policy.schema_keywords": "grammar",
    "requests": "field",
    "requests.admission": "guidance",
    "requests.model_name": "guidance",
    "requests.grammar_trial": "grammar",
    "requests.last_turn": "chat",
    "requests.messages": "chat",
    "requests.template_arguments": "chat",
    "requests.tools": "chat",
    "requests.tokenized": "picture",
    "guidance": "guidance",
    "pictures": "picture",
    "guards.stop_regex": "field",
    "guards": "scheduler",
    "http.ollama": "scheduler",
    "patches.openai_serving_chat_process_messages": "chat",
    "patches.tokenizer_manager_tokenize_one_request": "picture",
}
_OF_STATUS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "key",
    HTTPStatus.FORBIDDEN: "key",
    HTTPStatus.NOT_FOUND: "route",
    HTTPStatus.METHOD_NOT_ALLOWED: "route",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "size",
}
_PROBES = ("/health", "/health_generate")
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


def note(reason: str) -> None:
    """Remember why the HTTP request that is being answered is refused; what is known first counts."""
    call = current()
    if call is not None and call.refused_for is None:
        call.refused_for = reason


@contextmanager
def noted() -> Iterator[None]:
    """What is raised inside will refuse the request: note why, while the exception still says where it is from."""
    try:
        yield
    except Exception as error:
        note(reason_of_module(_raised_in(error)) or "sglang")
        raise


def reason_of(call: HttpCall, status: int) -> str | None:
    """One of `REASONS` for an answer of this status; None where nothing is refused, but given, or has failed."""
    if call.is_gone:
        return None  # SGLang makes a 400 of it
    if status in _BUSY:
        # A probe of a server that starts or ends.
        return None if call.path in _PROBES else "busy"
    if not 400 <= status < 500:
        return None
    # Who refuses an admitted request in this process was noted.
    return call.refused_for or _OF_STATUS.get(status, "scheduler" if call.guidance else "sglang")


def reason_of_module(name: str) -> str | None:
    """Why a module refuses a request; None: it is not of this package, or refuses none. `name`: in full."""
    package, _, inner = name.partition(".")
    if package != __name__.partition(".")[0]:
        return None
    while inner:
        if inner in _OF_MODULES:
            return _OF_MODULES[inner]
        inner = inner.rpartition(".")[0]
    return None


def _raised_in(error: BaseException) -> str:
    """The module whose line raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
