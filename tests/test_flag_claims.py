"""A field of SGLang's arguments that is called tested is set by the test that is named, or by a server that it asks."""

from __future__ import annotations

import pytest

from reached import sets
from sgl_proxythinker.policy.server_arguments import ARGUED, LIMITS, TESTED, TESTED_VALUES, flag

CLAIMS = [(test, field) for test, fields in TESTED.items() for field in fields.split()]


def is_set(test: str, field: str) -> bool:
    return not sets(test).isdisjoint({field, flag(field)})


@pytest.mark.parametrize(("test", "field"), CLAIMS)
def test_the_named_test_sets_the_field(test, field):
    assert is_set(test, field), f"{test} starts no server with {flag(field)}"


@pytest.mark.parametrize(("test", "claim"), TESTED_VALUES.items())
def test_the_named_tests_name_the_value_that_is_chosen(test, claim):
    field, value = claim
    assert value in LIMITS[field].allowed and is_set(test, field) and value in sets(test)


@pytest.mark.parametrize(
    "test",
    [
        "tests/test_gone.py",
        "tests/test_oracle.py::test_gone",
        "tests/test_tools_and_templates.py::TestCalls::test_gone",
        "tests/servers.py",
    ],
)
def test_a_test_that_is_gone_is_found(test):
    with pytest.raises(LookupError):
        sets(test)


def test_a_claim_that_is_hollow_is_found():
    assert not is_set("tests/test_oracle.py", "page_size")
    assert not is_set("tests/test_fusion.py", "model_path")
    # A string that holds the flag is no flag, and neither is the flag of another server in the same file.
    assert not is_set("tests/test_tools_and_templates.py::TestTools", "tool_call_parser")
    assert not is_set("tests/test_server_flags.py::TestPaged", "disable_radix_cache")


@pytest.mark.parametrize("reason", ARGUED)
def test_what_is_argued_has_a_sentence(reason):
    assert reason[0].isupper() and reason.endswith(".") and len(reason.split()) > 5
