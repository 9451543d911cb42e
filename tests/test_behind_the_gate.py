"""Requests that reach the processes behind the HTTP server and that these can't work with: each ends alone.

The values are put into a request after everything that checks one, as by a gap in those checks.
"""

import asyncio
import time

import pytest

pytestmark = pytest.mark.xdist_group("engine")

BAD, NEIGHBOUR = "Bad", "A long prompt"


def ask(engine, prompt, alpha, **options):
    params = {"temperature": 0, "ignore_eos": True, "custom_params": {"proxy_alpha": alpha}, **options}
    return engine.async_generate(prompt, {"max_new_tokens": 4, **params})


@pytest.fixture
def beside(engine, monkeypatch):
    """Run a request, changed on its way to the scheduler, beside another one whose tokens must not change."""
    manager = engine.tokenizer_manager
    send = manager._send_one_request

    def run(change, alpha, **options):
        def send_changed(tokenized):
            if tokenized.input_text == BAD:
                change(tokenized)
            send(tokenized)

        async def both():
            neighbour = asyncio.ensure_future(ask(engine, NEIGHBOUR, alpha, max_new_tokens=40))
            await asyncio.sleep(0.1)
            return await asyncio.gather(ask(engine, BAD, alpha, **options), neighbour, return_exceptions=True)

        alone = engine.loop.run_until_complete(ask(engine, NEIGHBOUR, alpha, max_new_tokens=40))
        with monkeypatch.context() as patch:
            patch.setattr(manager, "_send_one_request", send_changed)
            answer, neighbour = engine.loop.run_until_complete(both())
        assert neighbour["output_ids"] == alone["output_ids"], "a neighbour's tokens changed"
        assert BAD not in str(manager.rid_to_state), "nobody waits for it any more"
        # SGLang flushes at rest only: nothing waits, nothing runs, a moment after the last answer.
        deadline = time.monotonic() + 30
        while not (at_rest := engine.flush_cache().success) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert at_rest, "something is left in the scheduler"
        return answer

    return run


def sampling(**values):
    def change(tokenized):
        for name, value in values.items():
            setattr(tokenized.sampling_params, name, value)

    return change


def request(**values):
    def change(tokenized):
        for name, value in values.items():
            setattr(tokenized, name, value)

    return change


CHANGES = {
    "a bias of nothing": sampling(logit_bias={"5": None}),
    "a bias of text": sampling(logit_bias={"5": "x"}),
    "a list of biases": sampling(logit_bias=[5]),
    "a bias beyond float32": sampling(logit_bias={"5": 1e39}),
    "a bias of no id": sampling(logit_bias={"x": 1.0}),
    "a stop id below 0, with a minimum": sampling(stop_token_ids={-1}, min_new_tokens=2),
    "a stop id above all, without": sampling(stop_token_ids={151645}),
    "a stop id beyond int64": sampling(stop_token_ids={2**63}),
    "a broken length": sampling(max_new_tokens=1.5),
    "a regex in a list": sampling(regex=["a"]),
    "a temperature of 0 that isn't greedy": sampling(temperature=0.0, top_k=1 << 30),
    "a temperature beyond float32": sampling(temperature=1e39, top_k=1 << 30),
    "a temperature that is no number": sampling(temperature=float("nan"), top_k=1 << 30),
    "top_k beyond int32": sampling(top_k=1 << 40),
    "a penalty of text": sampling(frequency_penalty="1"),
    "a flag of the detokenizer's": sampling(skip_special_tokens="no"),
    "another one": sampling(no_stop_trim=[1]),
    "a stop string that is a number": sampling(stop_strs=[5]),
    "no prompt": lambda tokenized: tokenized.input_ids.__delitem__(slice(None)),
    "an id of no token": lambda tokenized: tokenized.input_ids.__setitem__(0, 10**6),
    "top logprobs below 0": request(top_logprobs_num=-1),
    "logprobs of an id of no token": request(token_ids_logprob=[10**6], return_logprob=True),
    "an extra key of a list": request(extra_key=["a"]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_a_scheduler_cant_work_with_ends_alone(beside, change):
    for alpha in (0.0, 0.5):
        answer = beside(change, alpha)
        assert isinstance(answer, ValueError), f"this becomes HTTP 400: {answer!r}"
        assert "this request can't be run: " in str(answer) and len(str(answer)) < 500
        assert "0x" not in str(answer) and "/" not in str(answer), "no address, no path"


def test_an_end_that_cant_be_decided_ends_alone(beside):
    """A pattern past the check, whose automaton can't be built: the error is in the loop over a step's results."""
    answer = beside(sampling(stop_regex_strs=["("]), 0.5)
    assert isinstance(answer, ValueError) and "stop_regex '('" in str(answer)


def test_an_answer_that_cant_be_handed_out_ends_alone(engine, beside, monkeypatch):
    manager = engine.tokenizer_manager
    convert = manager.convert_logprob_style

    def fail(meta_info, state, *args):
        if state.obj.text == BAD:
            raise KeyError("of this request")
        convert(meta_info, state, *args)

    monkeypatch.setattr(manager, "convert_logprob_style", fail)
    answer = beside(lambda tokenized: setattr(manager.rid_to_state[tokenized.rid].obj, "return_logprob", True), 0.5)
    assert answer.status_code == 500 and "the answer can't be handed out" in answer.detail


def test_a_metric_that_cant_be_counted_costs_no_answer(engine, beside, monkeypatch):
    manager = engine.tokenizer_manager
    from sgl_proxythinker.patches.tokenizer_manager_collect_metrics import around

    def fail(manager, state, recv_obj, i):
        raise ValueError("Incorrect label names")

    class Outputs:
        rids = ["a"]

    assert around(fail, manager, None, Outputs, 0) is None


class TestDetokenizer:
    """SGLang's own decoding, of a tokenizer that refuses one request's flag."""

    @pytest.fixture
    def manager(self, sglang, equal_triple):
        from sglang.srt.managers.detokenizer_manager import DetokenizerManager, LimitedCapacityDict
        from transformers import AutoTokenizer

        manager = DetokenizerManager.__new__(DetokenizerManager)
        manager.tokenizer = AutoTokenizer.from_pretrained(equal_triple.base)
        manager.vocab_size = len(manager.tokenizer)
        manager.decode_status = LimitedCapacityDict(capacity=100)
        manager.disable_tokenizer_batch_decode = manager.is_tool_call_parser_gpt_oss = False
        return manager

    def decode(self, manager, tokens, flags, finished=None):
        from types import SimpleNamespace

        from sglang.srt.managers.detokenizer_manager import DetokenizerManager

        from sgl_proxythinker.guards.lone_failures import decode_or_fail

        original = DetokenizerManager._decode_batch_token_id_output
        original = getattr(original, "__wrapped__", original)
        n = len(tokens)
        outputs = SimpleNamespace(
            rids=list(tokens), decoded_texts=[""] * n, decode_ids=list(tokens.values()), read_offsets=[0] * n,
            finished_reasons=list(finished or [None] * n), no_stop_trim=[False] * n, skip_special_tokens=flags,
            spaces_between_special_tokens=[True] * n,
        )  # fmt: skip
        return decode_or_fail(original, manager, outputs), outputs.finished_reasons

    def test_one_fails_and_the_others_go_on_where_they_were(self, manager):
        text = "Wörter, 😀 und mehr"
        ids = manager.tokenizer(text)["input_ids"]
        half = len(ids) // 2  # in the middle of a character
        first, _ = self.decode(manager, {"a": ids[:half], "bad": [1]}, [True, True])
        second, reasons = self.decode(manager, {"a": ids[half:-1], "bad": [2]}, [True, "no"])
        third, _ = self.decode(manager, {"a": ids[-1:]}, [True], [{"type": "length"}])
        assert first[0] + second[0] + third[0] == text
        assert second[1] == "" and reasons[0] is None
        assert reasons[1]["status_code"] == 500 and "turned into text" in reasons[1]["message"]
        assert not manager.decode_status, "nothing is kept of requests that have ended"
