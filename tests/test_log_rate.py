"""The log stays readable when every request fails, and what was left out of it is told."""

import logging
import re
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from sgl_proxythinker.log_rate import MOST, WINDOW_S, AtMost
from sgl_proxythinker.programs.pictures import data_url, random_picture

PATTERN = "request %s: broken"


@pytest.fixture(autouse=True)
def not_debugging(caplog):
    with caplog.at_level(logging.INFO):
        yield


def line(at_s: float, text: str = PATTERN, error: BaseException | None = None, said=("a%b",)) -> logging.LogRecord:
    raised = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("ours", logging.ERROR, __file__, 1, text, said, raised)
    record.created = at_s
    return record


def raised(kind: type[Exception]) -> Exception:
    try:
        raise kind("secret")
    except Exception as error:
        return error


def test_a_flood_is_ten_lines_a_minute_and_says_what_is_missing():
    """Kills: no bound, one for the whole life of a server, and lines that are lost without a word."""
    sparing = AtMost(keeps_lines=False)
    told = [record for at in range(640) if sparing.filter(record := line(at / 64))]
    assert len(told) == MOST
    assert [record.getMessage() for record in told[:-1]] == ["request a%b: broken"] * (MOST - 1)
    assert "the 10th in 60 s: lines like it are left out until then" in told[-1].getMessage()
    later = line(WINDOW_S)
    assert sparing.filter(later) and "630 lines like it were left out before this one" in later.getMessage()
    assert sparing.filter(again := line(WINDOW_S + 1)) and again.getMessage() == "request a%b: broken"


def test_kinds_are_places_in_the_code_and_not_what_stands_in_a_line():
    sparing = AtMost(keeps_lines=False)
    assert sum(sparing.filter(line(0.0)) for _ in range(100)) == MOST
    assert sparing.filter(line(0.0, "another %s"))
    assert sparing.filter(line(0.0, PATTERN, raised(KeyError)))
    whole = [line(0.0, f"Error: {number} %", said=()) for number in range(100)]
    told = [record.getMessage() for record in whole if sparing.filter(record)]
    assert len(told) == MOST and told[0] == "Error: 0 %", "SGLang fills in what a client sent before it logs"


def test_a_line_that_somebody_looks_for_stays_without_its_traceback():
    sparing = AtMost(keeps_lines=True)
    records = [line(0.0, PATTERN, raised(KeyError)) for _ in range(100)]
    assert all(map(sparing.filter, records))
    assert sum(record.exc_info is not None for record in records) == MOST
    other = line(0.0, PATTERN, raised(IndexError))
    assert sparing.filter(other) and other.exc_info, "another fault's traceback is no repetition"
    plain = [line(0.0) for _ in range(100)]
    assert all(map(sparing.filter, plain)) and {record.getMessage() for record in plain} == {"request a%b: broken"}


def test_debug_shows_all(caplog):
    caplog.set_level(logging.DEBUG)
    sparing = AtMost(keeps_lines=False)
    assert all(sparing.filter(line(0.0)) for _ in range(100))


# Of a real server

OF_EACH = 60  # kind of request
# SGLang's own, one for each request or batch whatever becomes of it.
OF_SGLANG = re.compile(r"^\[[^]]*\] (INFO: +[\d.]+:\d+ - |(Prefill|Decode) batch, ).*\n", re.MULTILINE)
LEFT_OUT = f"[the {MOST}th in {WINDOW_S:g} s: lines like it are left out until then]"
KINDS = {
    "ours": r"\] request \S+: the grammar of this request admits no end",
    "SGLang's": r"\] \[http_server\] Error: ",
}


@pytest.mark.xdist_group("guided")
def test_a_flood_of_requests_that_fail_is_a_few_lines_and_none_shows_a_prompt_a_form_or_a_picture(guided):
    """Kills: a line for each request that is refused, one that is left out without a word, and what was asked in a log.

    Requests that fail in a scheduler, at the door and by their picture come among others that are guided and traced.
    """
    secret, before = uuid.uuid4().hex, len(guided.log_text())
    picture, place = data_url(random_picture(1)), "<|vision_start|><|image_pad|><|vision_end|>"
    few = {"max_new_tokens": 2}
    asked = {
        "endless": (400, {"sampling_params": {"ebnf": f'root ::= "{secret}" x\nx ::= x', "max_new_tokens": 64}}),
        "refused": (400, {"sampling_params": {"custom_params": {"proxy_alpha": "strong"}}}),
        "broken": (400, {"text": f"{place}{secret}", "image_data": f"{picture[:60]}{secret}", "sampling_params": few}),
        "well": (200, {"sampling_params": {**few, "custom_params": {"proxy_alpha": 1.5, "proxy_trace": True}}}),
    }

    def answered(kind: str) -> tuple[str, int]:
        return kind, guided.post("/generate", {"text": f"{secret} Hi", **asked[kind][1]}).status_code

    with ThreadPoolExecutor(32) as pool:
        answers = set(pool.map(answered, [*asked] * OF_EACH))
    assert answers == {(kind, status) for kind, (status, _) in asked.items()}
    log = guided.log_text()[before:]
    assert secret not in log and picture[30:60] not in log
    ours = OF_SGLANG.sub("", log).splitlines()
    for whose, kind in KINDS.items():
        told = [line for line in ours if re.search(kind, line)]
        # A minute may have begun before, and each that begins while it goes on says so.
        begun = sum("lines like it were left out before this one" in line for line in told)
        assert len(told) <= MOST * (2 + begun) < OF_EACH, whose
        # All are left out where tests before had as many in the same minute; that was said then.
        said = [line for line in guided.log_text().splitlines() if re.search(kind, line)]
        assert told or any(LEFT_OUT in line for line in said), whose
    # What it ends with may have been said before these, in the same minute.
    assert guided.log_text().count(LEFT_OUT) >= len(KINDS)
    others = [line for line in ours if not any(re.search(kind, line) for kind in KINDS.values())]
    assert len(others) <= MOST, others
