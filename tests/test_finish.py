"""A chain of tokens ends a request where its tokens would have ended it one by one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

LETTERS = "abc. "
END_OF_THOUGHTS = "c "
SAMPLING = st.fixed_dictionaries(
    {
        "max_new_tokens": st.integers(1, 9),
        "stop": st.sampled_from([None, ["b."], ["cab", "a a"]]),
        "stop_regex": st.sampled_from([None, "a[bc]+a"]),
        "stop_token_ids": st.sampled_from([None, [1]]),
        "ignore_eos": st.booleans(),
    }
)


@pytest.fixture(scope="module")
def tokenizer(sglang, triple):
    tokenizer = AutoTokenizer.from_pretrained(triple.base)
    tokenizer.additional_stop_token_ids = None  # SGLang's own
    return tokenizer


def ends(
    tokenizer, sampling: dict, tokens: list[int], sizes: list[int], begin: Callable = lambda req: None
) -> tuple[object, list[int], int]:
    """Why a request ends that is given these tokens in chains of these sizes, what is sent, and how much is thought."""
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.sampling.sampling_params import SamplingParams

    from sgl_proxythinker.patches import req_update_finish_state

    params = SamplingParams(**{name: value for name, value in sampling.items() if value is not None})
    params.normalize(tokenizer)
    req = Req("r", "", [0], params, eos_token_ids={tokenizer.eos_token_id}, vocab_size=len(tokenizer))
    req.tokenizer = tokenizer
    begin(req)
    original = getattr(Req.update_finish_state, "__wrapped__", Req.update_finish_state)
    end_of_thoughts, given = [_id(tokenizer, letter) for letter in END_OF_THOUGHTS], 0
    for size in sizes:
        chain, tokens = tokens[:size], tokens[size:]
        if not chain or req.finished():
            break
        given += len(chain)
        req.output_ids.extend(chain)
        req.update_reasoning_tokens(chain, end_of_thoughts)
        req_update_finish_state.around(original, req, len(chain))
        assert len(req.output_ids) == given, "KV of a token that is lost is never released"
    reason = req.finished_reason and req.finished_reason.to_json()
    return reason, list(req.output_ids_through_stop), req.reasoning_tokens


@settings(max_examples=150)
@given(
    sampling=SAMPLING,
    written=st.text(alphabet=LETTERS + "$", min_size=1, max_size=12),
    sizes=st.lists(st.integers(1, 5), min_size=12, max_size=12),
)
def test_a_chain_ends_where_its_tokens_would_one_by_one(tokenizer, sampling, written, sizes):
    """Kills: the number of tokens before an end that comes earlier, a stop string that an end comes before."""
    tokens = [_id(tokenizer, letter) for letter in written]
    wanted = ends(tokenizer, sampling, tokens, [1] * len(tokens))
    if wanted[0] is None:
        assert wanted[1] == tokens, "it has not ended"
    else:
        assert wanted[0]["type"] in ("stop", "length")
    assert ends(tokenizer, sampling, tokens, sizes) == wanted


@pytest.mark.parametrize(
    ("written", "good_tokens", "wanted"),
    [
        ("ab$ab", 3, ("stop", 3)),  # the request has ended before the token that the error is of
        ("ab$ab", 4, ("stop", 3)),
        ("ab$ab", 2, ("abort", 3)),
        ("abcab", 1, ("abort", 2)),
        ("abcab", 5, ("abort", 5)),  # of a token that was not kept
    ],
)
def test_an_error_of_a_token_comes_after_those_before_it(tokenizer, written, good_tokens, wanted):
    """Kills: a row after an end whose error hides the answer; one before it that is forgotten."""
    from sglang.srt.managers.schedule_batch import FINISH_ABORT

    from sgl_proxythinker.guards.chain_end import end_after

    tokens = [_id(tokenizer, letter) for letter in written]
    begin = lambda req: end_after(req, good_tokens, FINISH_ABORT("broken", 500, "InternalServerError"))  # noqa: E731
    reason, sent, _ = ends(tokenizer, {"max_new_tokens": 9}, tokens, [5], begin)
    assert (reason["type"], len(sent)) == wanted


@cache
def _id(tokenizer, letter: str) -> int:
    return tokenizer.eos_token_id if letter == "$" else tokenizer(letter)["input_ids"][0]


def test_what_follows_an_end_in_its_chain_is_not_sent(tokenizer):
    """SGLang's own way sends it, where the chain reaches the number of tokens that was asked for."""
    tokens = [_id(tokenizer, letter) for letter in "ab$ab"]
    sampling = {"max_new_tokens": 5}
    reason, sent, thoughts = ends(tokenizer, sampling, tokens, [5])
    assert reason == {"type": "stop", "matched": tokenizer.eos_token_id} and sent == tokens[:3] and thoughts == 3


@pytest.mark.parametrize("place", range(4))
def test_a_chain_whose_end_cannot_be_decided_ends_with_that_token(tokenizer, place):
    """Kills: the rest of the chain that is forgotten with it, whose slots of KV nobody releases then."""
    sampling = {"max_new_tokens": 900, "stop_regex": "(a{100}){100}"}
    tokens = [_id(tokenizer, "a")] * 900
    wanted = ends(tokenizer, sampling, tokens, [1] * len(tokens))
    reason, sent, _ = wanted
    assert reason["type"] == "abort" and 1 < len(sent) < 900
    assert ends(tokenizer, sampling, tokens, [len(sent) - 1 - place, 4, 4]) == wanted
