"""`stop_regex` matches what Python's `re` would, in time that grows with the text alone."""

import itertools
import random
import re

import pytest
from transformers import AutoTokenizer

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guards.stop_regex import (
    MAX_CHARACTERS,
    MAX_PATTERNS,
    StopRegexError,
    StopRegexes,
    check_stop_regex,
)

REFUSED = [
    "(", "[", 5, ["a", 5], {"a": 1}, "a{9999999999}", "", ")|(", "a$", "^a", r"\bend", "(?=a)b", "(?<!a)b",
    r"(a)\1", "(?x) a # b",
    "a" * (MAX_CHARACTERS + 1), ["a"] * (MAX_PATTERNS + 1),
]  # fmt: skip
TAKEN = [
    None,
    [],
    "(a+)+b",
    ["a", "b"],
    r"\d+\.\s",
    "(.|.)*\0",
    "(?i)stop",
    r"(?i)[a-z ]+\w\s(?s:.)*",
    "(?i)[^äöü\\]]",
    r"[\S\D]",
    "[!-\U0010ffff]",
    "😀{2,3}",
    r"\n\s*\n",
    "(a|a)*b",
]


@pytest.fixture(scope="module")
def tokenizer(triple):
    return AutoTokenizer.from_pretrained(triple.base)


@pytest.mark.parametrize("patterns", REFUSED, ids=lambda patterns: repr(patterns)[:30])
def test_what_has_no_linear_time_is_refused_with_a_sentence(patterns):
    with pytest.raises(RequestError, match="^stop_regex ") as refusal:
        check_stop_regex(patterns)
    assert len(str(refusal.value)) < 1000 and "\n" not in str(refusal.value)


@pytest.mark.parametrize("patterns", TAKEN, ids=repr)
def test_what_has_linear_time_is_taken(patterns):
    check_stop_regex(patterns)


@pytest.mark.parametrize(
    "pattern", ["a+b", "(ab|ba){2}", "a.b", r"\s\d+x?y", "é+a", "😀b", "(a|b)*c{2}", "a?b?c?d", "[^a-c]{3}", "x*y"]
)
def test_it_stops_at_the_token_after_which_re_would_have_matched(tokenizer, pattern):
    source = random.Random(pattern)
    for _ in range(50):
        text = "".join(source.choices("ab c1xyédD\n😀", k=40))
        ids = tokenizer(text)["input_ids"]
        wanted = next(
            (
                count
                for count in range(1, len(ids) + 1)
                if re.search(pattern, tokenizer.decode(ids[:count]).rstrip("\ufffd"))
            ),
            None,
        )
        reader = StopRegexes([pattern])
        found = [reader.read(tokenizer, [token_id]) for token_id in ids]
        assert next((at + 1 for at, match in enumerate(found) if match), None) == wanted, (pattern, text)
        assert StopRegexes(["zzz", pattern]).read(tokenizer, ids) == (wanted and (pattern, wanted)), (pattern, text)


def test_a_pattern_that_grows_past_its_bounds_is_an_error(tokenizer):
    """The bounds are counts: the same on every rank, however busy it is."""
    a = tokenizer("a")["input_ids"]
    ended = []
    for _ in range(2):
        reader = StopRegexes(["(a{100}){100}"])
        with pytest.raises(StopRegexError):
            for step in itertools.count():  # noqa: B007
                reader.read(tokenizer, a)
        ended.append(step)
    assert ended[0] == ended[1]


# On a server


SLOW = {
    "it doubles with each character": {"regex": "a{40}", "stop_regex": "(a+)+b", "max_new_tokens": 40},
    "it doubles without a grammar, too": {"stop_regex": "(.|.)*\0", "max_new_tokens": 40, "ignore_eos": True},
    "two of them": {"stop_regex": ["(a|a)*\0\0", "((x*)*)*\0\0"], "max_new_tokens": 40, "ignore_eos": True},
}


@pytest.mark.xdist_group("guided")
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_patterns_that_python_never_ends_with_cost_nothing(guided, alpha):
    params = {"temperature": 0, "custom_params": {"proxy_alpha": alpha}}
    for about, options in SLOW.items():
        plainly = {name: value for name, value in options.items() if name != "stop_regex"}
        wanted = guided.generate(text="x", sampling_params={**params, **plainly})
        answer = guided.generate(text="x", sampling_params={**params, **options})
        assert answer["output_ids"] == wanted["output_ids"], about


@pytest.mark.xdist_group("guided")
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_a_match_ends_the_text(guided, alpha):
    params = {"temperature": 0, "custom_params": {"proxy_alpha": alpha}, "max_new_tokens": 30}
    answer = guided.generate(text="x", sampling_params={**params, "regex": "x{3}yz*", "stop_regex": ["q", "x+y"]})
    assert answer["text"] == "xxxy" and answer["meta_info"]["finish_reason"] == {"type": "stop", "matched": "x+y"}
    answer = guided.generate(text="x", sampling_params={**params, "regex": "😀{3}", "stop_regex": "😀{2}"})
    assert answer["text"] == "😀😀"


@pytest.mark.xdist_group("guided")
def test_one_that_grows_past_its_bounds_ends_its_request(guided):
    params = {"temperature": 0, "max_new_tokens": 3000, "regex": "a{3000}", "stop_regex": "(a{100}){100}"}
    response = guided.post("/generate", {"text": "x", "sampling_params": params})
    assert response.status_code == 400 and "too many ways to match" in response.text


@pytest.mark.xdist_group("guided")
def test_refusals_are_400_on_every_route(guided):
    messages = [{"role": "user", "content": "Hi"}]
    for body, route in (
        ({"text": "x", "sampling_params": {"stop_regex": "("}}, "/generate"),
        ({"messages": messages, "model": "m", "stop_regex": "("}, "/v1/chat/completions"),
        ({"prompt": "x", "model": "m", "stop_regex": "("}, "/v1/completions"),
    ):
        response = guided.post(route, body)
        assert response.status_code == 400 and "stop_regex can't be '('" in response.text, response.text
