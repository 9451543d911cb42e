"""A grammar is tried in a process of its own: what takes too long or crashes it is refused, and nothing else is."""

import asyncio
import json
import subprocess
import sys
import time

import pytest
from starlette.exceptions import HTTPException

from sgl_proxythinker.requests import grammar_trial
from sgl_proxythinker.requests.grammar_trial import GrammarTrial, try_grammars

pytestmark = pytest.mark.heavy

SLOW = json.dumps({"type": "integer", "multipleOf": 999_983})
TAG = {"structures": [{"begin": "a", "schema": {}, "end": "b"}], "triggers": ["a"]}
SLOW_TAG = json.dumps({**TAG, "structures": [{"begin": "a", "schema": json.loads(SLOW), "end": "b"}]})
GOOD = [
    ("regex", "(a|b)*c"), ("json_schema", '{"type": "object"}'), ("ebnf", 'root ::= "a" root | "b"'),
    ("structural_tag", json.dumps(TAG)),
]  # fmt: skip
WRONG = [("regex", "("), ("json_schema", "{"), ("regex", "\ud800"), ("ebnf", "?\n\0"), ("structural_tag", "{}")]
ENDING = "import os, sys; sys.stdin.readline(); os.{}"
PATIENCE_S = 300


def patient_trial(library, seconds):
    """One whose processes may take their time to start: what is bounded here is the compilation."""
    trial = GrammarTrial(library, seconds)
    trial._wait_s = PATIENCE_S
    return trial


def why_not(trial, *grammars):
    async def ask():
        verdicts = await asyncio.gather(*(trial.verdict(kind, source) for kind, source in grammars))
        return [verdict.why_not for verdict in verdicts]

    return asyncio.run(ask())


def said(library, *grammars):
    """What the process says of each."""
    lines = "".join(json.dumps(grammar) + "\n" for grammar in grammars)
    command = [sys.executable, "-m", "sgl_proxythinker.requests.grammar_process", library, "5"]
    return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=100).stdout.splitlines()


@pytest.fixture(scope="module", params=["llguidance", "xgrammar"])
def trial(request):
    return patient_trial(request.param, 1.0)


def test_the_process_compiles_every_kind_and_knows_what_is_wrong(trial):
    verdicts = [line.split()[0] for line in said(trial.library, *GOOD, *WRONG)]
    assert verdicts == ["ok"] * len(GOOD) + ["error"] * len(WRONG)


def test_what_compiles_passes_and_what_is_wrong_is_left_to_the_compiler_that_says_why(trial):
    assert why_not(trial, *GOOD, *WRONG) == [None] * len(GOOD + WRONG)


def test_what_takes_for_ever_is_refused_and_remembered_and_others_go_on():
    trial = patient_trial("llguidance", 1.0)
    asked = [("json_schema", SLOW), ("regex", "a+"), ("structural_tag", SLOW_TAG), ("json_schema", SLOW)]
    reasons = why_not(trial, *asked, ("regex", "b+"))
    slow = "it takes more than 1 s to compile"
    assert [reason and reason.partition(",")[0] for reason in reasons] == [slow, None, slow, slow, None]
    assert len(trial._trials) == 4, "those that are alike are tried once"
    begin = time.process_time()
    assert why_not(trial, ("json_schema", SLOW)) == reasons[:1]
    assert time.process_time() - begin < 0.5


def test_who_waits_no_longer_does_not_end_a_trial():
    trial = patient_trial("llguidance", 1.0)
    trial._wait_s = 0.2
    with pytest.raises(HTTPException, match="busy with other grammars"):
        why_not(trial, ("json_schema", SLOW))
    trial._wait_s = PATIENCE_S
    assert "takes more than 1 s" in why_not(trial, ("json_schema", SLOW))[0]


@pytest.mark.parametrize("end", ["abort()", "_exit(86)"])
def test_a_crash_ends_the_trial_alone(end):
    trial = patient_trial("llguidance", 1.0)
    ours, trial._command = trial._command, [sys.executable, "-c", ENDING.format(end)]
    assert "crashes on it" in why_not(trial, ("regex", "a"))[0]
    trial._command = ours
    assert why_not(trial, ("regex", "b")) == [None]


def test_a_process_that_others_ended_is_started_again(monkeypatch):
    monkeypatch.setattr(grammar_trial, "_AT_ONCE", 1)
    trial = patient_trial("llguidance", 1.0)
    ours, trial._command = trial._command, [sys.executable, "-c", ENDING.format("kill(os.getpid(), 9)")]
    trial._threads.submit(trial._ask, "regex", "a").result()  # one that is gone before the next grammar comes
    with pytest.raises(HTTPException, match="can't try grammars at the moment"):
        why_not(trial, ("regex", "a"))
    trial._command = ours
    assert why_not(trial, ("regex", "a")) == [None]
    trial._threads.submit(lambda: trial._own.process.kill()).result()
    assert why_not(trial, ("regex", "b")) == [None]


def test_too_much_memory_is_a_refusal():
    """`OUT_OF_MEMORY` is told, and not passed over as a grammar that is merely wrong."""
    script = (
        "from sgl_proxythinker.requests import grammar_process as p\n"
        "p.MEMORY_BYTES = 60 << 20\n"
        "p._COMPILERS['greedy'] = lambda: lambda kind, source: bytearray(int(source))\n"
        "p.main('greedy', 5)\n"
    )
    trial = patient_trial("llguidance", 1.0)
    trial._command = [sys.executable, "-c", script]
    assert why_not(trial, ("regex", "1000")) == [None]
    assert "runs out of memory" in why_not(trial, ("regex", str(1 << 30)))[0]


def test_all_grammars_of_a_request_share_one_bound():
    """Kills: two dozen schemas of two seconds each, which everybody's grammars wait behind."""
    trial = patient_trial("llguidance", 0.5)
    several = [{"json_schema": json.dumps({"type": "integer", "multipleOf": 30_001 + 2 * n})} for n in range(200)]
    assert why_not(trial, ("json_schema", several[0]["json_schema"])) == [None]
    with pytest.raises(ValueError, match="the grammars of this request take more than 0.5 s to compile together"):
        asyncio.run(try_grammars(several, trial))
    asyncio.run(try_grammars([several[0]] * 500, trial))


def test_the_field_is_named_and_xgrammar_is_not_asked_for_what_it_reads_over():
    with pytest.raises(ValueError, match="json_schema can't be used: it takes more than 1 s"):
        asyncio.run(try_grammars([{"regex": "a"}, None, {"json_schema": SLOW}], patient_trial("llguidance", 1.0)))
    for params in ({"json_schema": SLOW}, {"structural_tag": SLOW_TAG}):
        with pytest.raises(ValueError, match="has multipleOf, which xgrammar reads over"):
            asyncio.run(try_grammars(params, patient_trial("xgrammar", 1.0)))
    asyncio.run(try_grammars({"json_schema": SLOW}, None))
    asyncio.run(try_grammars({"max_new_tokens": 5}, patient_trial("xgrammar", 1.0)))
