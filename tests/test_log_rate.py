"""The log stays readable when every request fails, and what was left out of it is told."""

import logging

import pytest

from sgl_proxythinker.log_rate import MOST, WINDOW_S, AtMost

PATTERN = "request %s: broken"


@pytest.fixture(autouse=True)
def not_debugging(monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)


def line(at_s: float, text: str = PATTERN, error: BaseException | None = None) -> logging.LogRecord:
    raised = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("ours", logging.ERROR, __file__, 1, text, ("a%b",), raised)
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


def test_a_line_that_somebody_looks_for_stays_without_its_traceback():
    sparing = AtMost(keeps_lines=True)
    records = [line(0.0, PATTERN, raised(KeyError)) for _ in range(100)]
    assert all(map(sparing.filter, records))
    assert sum(record.exc_info is not None for record in records) == MOST
    other = line(0.0, PATTERN, raised(IndexError))
    assert sparing.filter(other) and other.exc_info, "another fault's traceback is no repetition"
    plain = [line(0.0) for _ in range(100)]
    assert all(map(sparing.filter, plain)) and {record.getMessage() for record in plain} == {"request a%b: broken"}


def test_debug_shows_all(monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)
    sparing = AtMost(keeps_lines=False)
    assert all(sparing.filter(line(0.0)) for _ in range(100))
