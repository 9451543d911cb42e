"""A grammar that admits no text is an error each time, and so is an end that it doesn't accept."""

import json
import time
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer

from servers import ON_GPU
from sgl_proxythinker.guards.endless_schema import never_ends

TREE = {
    "$defs": {
        "t": {
            "type": "object",
            "properties": {"l": {"anyOf": [{"$ref": "#/$defs/t"}, {"type": "null"}]}},
            "required": ["l"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/t",
}
ENDLESS = [
    {"$ref": "#"},
    {"allOf": [{"$ref": "#"}]},
    {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    {"type": "array", "minItems": 1, "items": {"$ref": "#"}},
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
]
ENDING = [
    TREE, {}, True, {"type": "object", "properties": {"a": {"$ref": "#"}}}, {"type": "array", "items": {"$ref": "#"}},
    {"type": ["object", "null"], "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, {"$ref": "https://x"},
]  # fmt: skip
# No text at all: found when it is compiled, or at the first dead end.
DEAD = {
    **{f"schema {number}": {"json_schema": json.dumps(schema)} for number, schema in enumerate(ENDLESS)},
    "no member": {"json_schema": '{"enum": []}'},
    "a rule of itself": {"ebnf": "root ::= root"},
    "a rule of itself, later": {"ebnf": 'root ::= "a" x\nx ::= x'},
    "a rule of nothing and itself": {"ebnf": 'root ::= "" root'},
    "no character": {"regex": r"[^\s\S]"},
    "no character, later": {"regex": r"a[^\s\S]"},
    "too complex": {"regex": "(a{1000}){1000}"},
    "no regex": {"regex": "("},
    "no grammar": {"ebnf": "root = ((("},
    "no tag": {"structural_tag": "{}"},
    "no schema": {"json_schema": '{"type": "x"}'},
}
# xgrammar, SGLang's library on GPUs, compiles more, and takes \s and \S for what they are in ASCII: these admit texts.
OF_LLGUIDANCE = ("no character", "no character, later", "too complex")
DEAD_HERE = {name: grammar for name, grammar in DEAD.items() if not (ON_GPU and name in OF_LLGUIDANCE)}


def test_schemas_without_a_finite_value():
    assert [never_ends(json.dumps(schema)) for schema in ENDLESS] == [True] * len(ENDLESS)
    assert [never_ends(json.dumps(schema)) for schema in ENDING] == [False] * len(ENDING)
    assert not never_ends("$$ANY$$") and not never_ends("[" * 100_000)


# On a server


@pytest.mark.xdist_group("guided")
@pytest.mark.parametrize("grammar", DEAD_HERE.values(), ids=DEAD_HERE.keys())
def test_no_text_is_an_error_each_time(guided, grammar):
    for alpha in (0.0, 0.0, 0.5):
        params = {"temperature": 0, "max_new_tokens": 12, "custom_params": {"proxy_alpha": alpha}, **grammar}
        response = guided.post("/generate", {"text": "Hi", "sampling_params": params})
        assert response.status_code == 400 and "grammar" in response.text, response.text
        assert len(response.text) < 1000


@pytest.mark.xdist_group("guided")
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_texts_that_a_grammar_admits_are_answers(guided, alpha):
    def ask(**grammar):
        params = {"temperature": 0, "max_new_tokens": 16, "custom_params": {"proxy_alpha": alpha}, **grammar}
        answer = guided.generate(text="Hi", sampling_params=params)
        return answer["text"], answer["meta_info"]["finish_reason"]["type"]

    assert ask(regex="ab") == ("ab", "stop")
    assert ask(ebnf='root ::= ""') == ("", "stop"), "the empty text is the one that it admits"
    text, end = ask(regex="a*")
    assert set(text) <= {"a"}
    assert ask(json_schema=json.dumps(TREE))[0].startswith("{")
    assert ask(json_schema="{}")[0]
    # The user's own wish may cut a text.
    assert ask(regex="abc", stop="b") == ("a", "stop")
    assert ask(regex="abc", stop_regex="[b]")[1] == "stop"
    assert ask(regex="abc", max_new_tokens=2) == ("ab", "length")
    [b] = guided.post("/tokenize", {"model": "m", "prompt": "b"}).json()["tokens"]
    assert ask(regex="abc", stop_token_ids=[b]) == ("a", "stop")


@pytest.mark.xdist_group("guided")
def test_grammars_are_read_by_the_library_that_these_tests_are_about(guided):
    """No flag says which: SGLang chooses it on a GPU, and we on a CPU."""
    assert guided.get("/server_info").json()["grammar_backend"] == ("xgrammar" if ON_GPU else "llguidance")


@pytest.mark.xdist_group("guided")
def test_nothing_is_left_of_requests_that_ended_so(guided):
    for grammar in (DEAD["too complex"], DEAD["a rule of itself"]):
        guided.post("/generate", {"text": "Hi", "sampling_params": grammar})
    guided.generate(text="Hi", sampling_params={"max_new_tokens": 2})
    deadline = time.monotonic() + 60
    while used := [
        line
        for line in guided.get("/metrics").text.splitlines()
        if line.startswith(("sglang:num_used_tokens{", "sglang:num_running_reqs{")) and float(line.split()[-1])
    ]:
        assert time.monotonic() < deadline, used
        time.sleep(0.5)


# xgrammar, the GPU's, without SGLang's mask kernel


@pytest.fixture(scope="module")
def xgrammar(sglang, triple):
    from sglang.srt.constrained.xgrammar_backend import XGrammarGrammarBackend

    tokenizer = AutoTokenizer.from_pretrained(triple.base)
    return XGrammarGrammarBackend(tokenizer, vocab_size=len(tokenizer), model_eos_token_ids=[tokenizer.eos_token_id])


def compiled(backend, kind, source):
    from sgl_proxythinker.guards.grammars import compile_or_refuse

    return compile_or_refuse(kind, source, lambda: backend._init_value_dispatch((kind, source), False))


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("ebnf", "root ::= root"),
        ("ebnf", 'root ::= "" root'),
        ("json", '{"$ref": "#"}'),
        ("json", '{"enum": []}'),
        ("regex", "("),
    ],
)
def test_xgrammar_without_a_text_is_refused(xgrammar, kind, source):
    assert compiled(xgrammar, kind, source).error_message


@pytest.mark.parametrize(("kind", "source"), [("regex", "a*"), ("ebnf", 'root ::= ""'), ("json", json.dumps(TREE))])
def test_xgrammar_with_a_text_is_taken(xgrammar, kind, source):
    assert not hasattr(compiled(xgrammar, kind, source), "error_message")


@pytest.mark.parametrize(("source", "is_end"), [('root ::= "a" x\nx ::= x', False), ('root ::= "a"', True)])
def test_an_end_that_xgrammar_doesnt_accept_is_an_error(xgrammar, triple, source, is_end):
    """A dead end leaves the end of the text as the one token that can be drawn; drawn, it is refused."""
    from sglang.srt.managers.schedule_batch import FINISH_MATCHED_TOKEN
    from sglang.srt.managers.scheduler_components.batch_result_processor import SchedulerBatchResultProcessor

    from sgl_proxythinker.guards.grammars import accept_or_abort, leave_an_end

    tokenizer = AutoTokenizer.from_pretrained(triple.base)
    [a], end = tokenizer("a")["input_ids"], tokenizer.eos_token_id
    grammar = compiled(xgrammar, "ebnf", source)
    req = SimpleNamespace(
        rid="r",
        grammar=grammar,
        to_finish=None,
        finished_reason=None,
        sampling_params=SimpleNamespace(stop_token_ids=None, max_new_tokens=8),
    )
    req.finished = lambda: req.finished_reason is not None

    def accept(token):
        method = SchedulerBatchResultProcessor._accept_grammar_tokens
        method = getattr(method, "__wrapped__", method)
        accept_or_abort(req, [token], lambda each: method(None, req, each))

    accept(a)
    mask = torch.full((1, (len(tokenizer) + 31) // 32), -1, dtype=torch.int32)
    grammar.matcher.fill_next_token_bitmask(mask, 0)
    leave_an_end(grammar, mask, 0)
    allowed = [token for token in range(len(tokenizer)) if mask[0, token // 32].item() >> (token % 32) & 1]
    assert allowed == [end]
    req.finished_reason = FINISH_MATCHED_TOKEN(matched=end)
    accept(end)
    told = req.finished_reason.to_json()
    assert told["type"] == ("stop" if is_end else "abort")
    assert is_end or told["status_code"] == 400


@pytest.mark.parametrize(("drawn", "is_end"), [("ab", True), ("abbb", True), ("abb", False), ("a", False), ("", False)])
def test_a_chain_is_read_token_by_token_up_to_its_end(xgrammar, triple, drawn, is_end):
    """Kills: an end that is judged before the tokens that lead to it were read."""
    from sglang.srt.managers.scheduler_components.batch_result_processor import SchedulerBatchResultProcessor

    from sgl_proxythinker.guards.grammars import accept_or_abort

    tokenizer = AutoTokenizer.from_pretrained(triple.base)
    ids = [tokenizer(letter)["input_ids"][0] for letter in drawn] + ([tokenizer.eos_token_id] if is_end else [])
    grammar = compiled(xgrammar, "ebnf", 'root ::= "a" "b"+')
    params = SimpleNamespace(stop_token_ids=None, max_new_tokens=8)
    req = SimpleNamespace(rid="r", grammar=grammar, to_finish=None, sampling_params=params, finished=lambda: False)
    method = SchedulerBatchResultProcessor._accept_grammar_tokens
    method = getattr(method, "__wrapped__", method)
    assert accept_or_abort(req, ids, lambda token: method(None, req, token)) == ids
    assert grammar.is_terminated() is is_end and req.to_finish is None
