"""A refusal is counted by one of a few words, which follows from where it was raised and never from what it says."""

import re
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

import sgl_proxythinker
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guidance import Defaults, Guidance, read_guidance
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.metrics.refusals import REASONS, note, noted, reason_of, reason_of_module
from sgl_proxythinker.patches.openai_serving_chat_process_messages import around
from sgl_proxythinker.policy.sampling_fields import check_sampling_params
from sgl_proxythinker.requests.call import HttpCall, begin
from sgl_proxythinker.server import mark_as_ours

ROOT = Path(sgl_proxythinker.__file__).parent
SIDES = [(ROOT, "sgl_proxythinker"), (ROOT.parent / "patches", "sgl_proxythinker.patches")]
# Of a program's or an evaluation's own process, where no HTTP request is answered.
ELSEWHERE = ("sgl_proxythinker.frontend.", "sgl_proxythinker.evaluation.")
MODULES = sorted(
    ".".join((package, *path.relative_to(folder).with_suffix("").parts))
    for folder, package in SIDES
    for path in folder.rglob("*.py")
    if re.search(r"raise (RequestError|\w*HTTPException)\(", path.read_text())
)


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith(ELSEWHERE)])
def test_every_module_that_refuses_has_a_reason(module):
    """Kills: refusals of a new room that count as SGLang's. A body is read into HTTPExceptions of what has a reason."""
    made_of_another = module == "sgl_proxythinker.patches.http_server_orjson_request_json"
    assert made_of_another or reason_of_module(module) in REASONS


def test_modules_of_others_have_none():
    for name in ("", "sglang.srt.managers.tokenizer_manager", "sgl_proxythinkers.pictures", "sgl_proxythinker", "json"):
        assert reason_of_module(name) is None


def refused(why) -> str | None:
    call = begin("/generate")
    with suppress(ValueError, KeyError), noted():
        why()
    return call.refused_for


def test_the_line_that_raised_it_decides():
    """Kills: the outermost module, which is the same for all, and the message."""
    assert refused(lambda: read_guidance({"proxy_alpha": "0.5"}, Defaults())) == "guidance"
    assert refused(lambda: check_sampling_params({"temperature": -1}, lambda name: name)) == "field"
    assert refused(lambda: int("picture")) == "sglang"
    assert refused(lambda: None) is None


def test_what_is_known_first_counts():
    call = begin("/generate")
    with suppress(RequestError), noted():
        note("scheduler")
        raise RequestError("made of it")
    assert call.refused_for == "scheduler"


def test_what_a_template_raises_is_the_chats():
    server_args = SimpleNamespace()
    mark_as_ours(server_args, None, None, Limits())
    serving = SimpleNamespace(tokenizer_manager=SimpleNamespace(server_args=server_args))
    chat = SimpleNamespace(messages=["Hi"])
    assert refused(lambda: around(lambda *_: int("roles must alternate"), serving, chat, False)) == "chat"


@pytest.mark.parametrize(
    ("status", "call", "reason"),
    [
        (200, HttpCall("/"), None),
        (400, HttpCall("/"), "sglang"),
        (400, HttpCall("/", refused_for="picture"), "picture"),
        (400, HttpCall("/", guidance=[Guidance()]), "scheduler"),
        (400, HttpCall("/", refused_for="scheduler", is_gone=True), None),
        (401, HttpCall("/"), "key"),
        (403, HttpCall("/"), "key"),
        (404, HttpCall("/"), "route"),
        (405, HttpCall("/"), "route"),
        (413, HttpCall("/"), "size"),
        (422, HttpCall("/"), "sglang"),
        (429, HttpCall("/"), "busy"),
        (503, HttpCall("/", refused_for="grammar", guidance=[Guidance()]), "busy"),
        (500, HttpCall("/", refused_for="picture"), None),
    ],
)
def test_the_status_decides_where_nothing_else_is_known(status, call, reason):
    """A failure is no refusal, and who has left is refused nothing."""
    assert reason_of(call, status) == reason


def test_no_other_reasons_are_made():
    calls = [HttpCall("/"), HttpCall("/", guidance=[Guidance()])]
    made = {reason_of(call, status) for call in calls for status in range(100, 600)}
    assert made <= {None, *REASONS}
