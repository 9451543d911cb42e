"""A grammar is tried in a process of its own: what takes too long or crashes it is refused, and nothing else is."""

import asyncio
import json
import sys
import time

import pytest

from sgl_proxythinker.requests.grammar_trial import GrammarTrial, try_grammars

SLOW = json.dumps({"type": "integer", "multipleOf": 999_983})
CRASHING = "import os, sys; sys.stdin.readline(); os.abort()"


def why_not(trial, *grammars):
    async def ask():
        return await asyncio.gather(*(trial.why_not(kind, source) for kind, source in grammars))

    return asyncio.run(ask())


@pytest.fixture(scope="module", params=["llguidance", "xgrammar"])
def trial(request):
    return GrammarTrial(request.param, 1.0)


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("regex", "(a|b)*c"), ("json_schema", '{"type": "object"}'), ("ebnf", 'root ::= "a" root | "b"'),
        ("structural_tag", '{"structures": [{"begin": "a", "schema": {}, "end": "b"}], "triggers": ["a"]}'),
    ],
)  # fmt: skip
def test_what_compiles_passes(trial, kind, source):
    assert why_not(trial, (kind, source)) == [None]


def test_what_is_wrong_is_left_to_the_compiler_that_says_why(trial):
    assert why_not(trial, ("regex", "("), ("json_schema", "{"), ("regex", "\ud800"), ("ebnf", "?\n\0")) == [None] * 4


def test_what_takes_for_ever_is_refused_and_remembered_and_others_go_on():
    trial = GrammarTrial("llguidance", 1.0)
    reasons = why_not(trial, ("json_schema", SLOW), ("regex", "a+"), ("json_schema", SLOW + " "), ("regex", "b+"))
    assert [reason and reason.partition(",")[0] for reason in reasons] == [
        "it takes more than 1 s to compile", None, "it takes more than 1 s to compile", None,
    ]  # fmt: skip
    begin = time.process_time()
    assert why_not(trial, ("json_schema", SLOW)) == reasons[:1]
    assert time.process_time() - begin < 0.5


def test_a_crash_ends_the_trial_alone():
    trial = GrammarTrial("llguidance", 1.0)
    ours = trial._command
    trial._command = [sys.executable, "-c", CRASHING]
    assert "crashes on it" in why_not(trial, ("regex", "a"))[0]
    trial._command = ours
    assert why_not(trial, ("regex", "b")) == [None]


def test_the_field_is_named_and_xgrammar_is_not_asked_for_what_it_reads_over():
    with pytest.raises(ValueError, match="json_schema can't be used: it takes more than 1 s"):
        asyncio.run(try_grammars([{"regex": "a"}, {"json_schema": SLOW}], GrammarTrial("llguidance", 1.0)))
    with pytest.raises(ValueError, match="json_schema has multipleOf, which xgrammar reads over"):
        asyncio.run(try_grammars({"json_schema": SLOW}, GrammarTrial("xgrammar", 1.0)))
    asyncio.run(try_grammars({"json_schema": SLOW}, None))
    asyncio.run(try_grammars({"max_new_tokens": 5}, GrammarTrial("xgrammar", 1.0)))
