"""Every field of a request was looked at, and what a scheduler could not read is refused by its name.

The law: whatever comes in is either what SGLang's processes can work with, or a RequestError of one sentence.
"""

import dataclasses
import math
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.policy import generate_fields
from sgl_proxythinker.policy.bounds import Bounds
from sgl_proxythinker.policy.generate_fields import (
    HARMLESS,
    REFUSED,
    GenerateFields,
    check_body_fields,
    check_request,
    default_of,
)
from sgl_proxythinker.policy.sampling_fields import SamplingFields, check_sampling_params, depth
from upstream_sources import declared_fields

LIMITS = Limits(
    max_n=8, max_batch=16, max_stops=3, max_bias=2, max_logprobs=9, max_schema_depth=5, max_logprobs_in_all=2_000
)
BOUNDS = Bounds(LIMITS, 10, 100)

# SamplingParams' own: it fills them itself, and a request that sets them would skip its checks.
OF_SGLANG = {"stop_strs", "stop_regex_strs", "stop_str_max_len", "stop_regex_max_len", "is_normalized"}
REASONS = {field: refusal for refusal in REFUSED for field in refusal.fields.split()}


@pytest.fixture(scope="module")
def request_class(sglang):
    from sglang.srt.managers.io_struct import GenerateReqInput

    return GenerateReqInput


@pytest.fixture(scope="module")
def params_class(sglang):
    from sglang.srt.sampling.sampling_params import SamplingParams

    return SamplingParams


@pytest.fixture(scope="module")
def defaults(request_class):
    return {field.name: default_of(field) for field in dataclasses.fields(request_class)}


def refused(params):
    with pytest.raises(RequestError) as error:
        check_sampling_params(params, BOUNDS)
    return str(error.value)


class TestClassification:
    @pytest.mark.sources
    def test_every_sampling_parameter_is_declared_or_sglangs_own(self):
        fields = declared_fields("sglang.srt.sampling.sampling_params:SamplingParams")
        assert fields == set(SamplingFields.model_fields) | OF_SGLANG
        assert OF_SGLANG.isdisjoint(SamplingFields.model_fields)

    @pytest.mark.sources
    def test_every_field_of_a_request_is_in_one_table(self):
        fields = declared_fields("sglang.srt.managers.io_struct:GenerateReqInput")
        assert fields == set(GenerateFields.model_fields) | HARMLESS | REASONS.keys()
        assert REASONS.keys().isdisjoint(GenerateFields.model_fields)
        assert generate_fields.SET_BY_SGLANG <= fields

    @pytest.mark.parametrize("field", REASONS)
    def test_a_refused_field_is_named_with_its_reason(self, defaults, field):
        with pytest.raises(RequestError, match=f"^{field} can't be used .*{REASONS[field].why[:20]}"):
            check_body_fields({field: "set"}, defaults, frozenset(), guided=True)
        check_body_fields({field: defaults[field]}, defaults, frozenset(), guided=True)

    def test_a_plain_server_takes_what_only_three_models_can_not(self, defaults):
        check_body_fields({"return_hidden_states": True}, defaults, frozenset(), guided=False)
        with pytest.raises(RequestError, match="mm_hashes"):
            check_body_fields({"mm_hashes": ["00"]}, defaults, frozenset(), guided=False)

    def test_a_field_that_nobody_has_classified_is_refused_when_it_is_set(self):
        defaults = {"beam_width": 1}
        check_body_fields({"beam_width": 1}, defaults, frozenset(), guided=True)
        check_body_fields({"unknown_to_sglang": 5}, defaults, frozenset(), guided=True)
        with pytest.raises(RequestError, match="beam_width .* not classified"):
            check_body_fields({"beam_width": 2}, defaults, frozenset(), guided=False)

    def test_labels_are_those_that_the_flag_names(self, defaults):
        check_body_fields({"custom_labels": {"team": "a"}}, defaults, frozenset({"team"}), guided=True)
        with pytest.raises(RequestError, match="custom_labels names 'a', .* take team"):
            check_body_fields({"custom_labels": {"a": "b"}}, defaults, frozenset({"team"}), guided=True)

    def test_arrays_are_not_asked_for_their_truth(self, request_class):
        with pytest.raises(RequestError, match="input_embeds can't be used"):
            check_request(request_class(text="x", input_embeds=np.zeros((2, 4))), BOUNDS, guided=True)


GOOD = [
    {},
    dict.fromkeys(SamplingFields.model_fields),
    {"temperature": 0, "top_p": 1, "top_k": -1, "min_p": 0, "n": 8, "stop": "x", "stop_token_ids": [0, 9, None]},
    {"temperature": 1e-7, "top_p": 1e-8, "repetition_penalty": 0.5, "logit_bias": {"0": -100, "9": 3}},
    {"sampling_seed": -(2**63), "max_new_tokens": 0, "stop": ["a", "b", "c"], "stream_interval": 3},
    {"json_schema": '{"type": "object"}', "skip_special_tokens": False, "custom_params": {"proxy_alpha": 1}},
    {"regex": "a*", "ignore_eos": True, "no_stop_trim": True, "frequency_penalty": -2, "presence_penalty": 2},
]
BAD = [
    ("temperature", "hot"), ("temperature", "1"), ("temperature", True), ("temperature", 1e39), ("temperature", -1),
    ("temperature", math.nan), ("temperature", math.inf), ("temperature", 10**400), ("temperature", [1]),
    ("top_p", 0), ("top_p", 1.1), ("top_k", 0), ("top_k", 1.5), ("top_k", 2**31), ("min_p", -1),
    ("repetition_penalty", 1e-46), ("repetition_penalty", 0), ("frequency_penalty", 3), ("presence_penalty", "x"),
    ("max_new_tokens", 1.5), ("max_new_tokens", "3"), ("max_new_tokens", -1), ("max_new_tokens", 10**30),
    ("max_new_tokens", True), ("min_new_tokens", -1), ("n", 0), ("n", -1), ("n", 9), ("n", 1.5), ("n", "2"),
    ("stop", 5), ("stop", [5]), ("stop", ""), ("stop", ["a", ""]), ("stop", list("abcd")), ("stop", "x" * 2000),
    ("stop", {"a": 1}), ("stop_token_ids", 5), ("stop_token_ids", ["5"]), ("stop_token_ids", [1.5]),
    ("stop_token_ids", [True]), ("stop_token_ids", [[5]]), ("stop_token_ids", [-1]), ("stop_token_ids", [10]),
    ("stop_token_ids", [2**63]), ("stop_token_ids", [1, 2, 3, 4]),
    ("logit_bias", [5]), ("logit_bias", {"5": None}), ("logit_bias", {"5": "x"}), ("logit_bias", {"a": 1}),
    ("logit_bias", {"-1": 1}), ("logit_bias", {"10": 1}), ("logit_bias", {"1_0": 1}), ("logit_bias", {"5": 1e39}),
    ("logit_bias", {"5": -1e308}), ("logit_bias", {"1": 1, "2": 1, "3": 1}), ("logit_bias", {"9" * 5000: 1}),
    ("skip_special_tokens", "no"), ("skip_special_tokens", 5), ("ignore_eos", "yes"), ("no_stop_trim", 1),
    ("regex", ["a"]), ("regex", 5), ("regex", "a" * 300_000), ("ebnf", {}), ("structural_tag", []),
    ("json_schema", {"type": "object"}), ("json_schema", "{"), ("json_schema", "5"), ("json_schema", "[" * 5000),
    ("json_schema", '{"a":' * 6 + "1" + "}" * 6), ("sampling_seed", 2**63), ("sampling_seed", "100"),
    ("sampling_seed", 1.5), ("stream_interval", 0), ("stop_regex", 5), ("stop_regex", ["a", 5]),
    ("is_normalized", True), ("stop_strs", ["x"]), ("stop_str_max_len", 2**40), ("max_tokens", 3), ("proxy_alpha", 1),
    ("beam_width", 4), ("__class__", 1),
]  # fmt: skip


class TestSamplingParams:
    @pytest.mark.parametrize("params", GOOD)
    def test_what_works_is_taken(self, params, params_class):
        check_sampling_params(params, BOUNDS)
        params_class(**params)

    @pytest.mark.parametrize(("field", "value"), BAD, ids=lambda value: str(value)[:24])
    def test_what_does_not_is_refused_by_name_in_one_sentence(self, field, value):
        sentence = refused({field: value})
        assert field in sentence and len(sentence) < 1000 and "\n" not in sentence
        assert "http" not in sentence and "0x" not in sentence

    @pytest.mark.parametrize("params", [[], "x", 5, True])
    def test_they_are_an_object(self, params):
        assert "sampling_params is" in refused(params)

    def test_at_least_as_many_as_at_most_is_refused(self):
        assert "min_new_tokens is 3, more than max_new_tokens, which is 2" in refused(
            {"min_new_tokens": 3, "max_new_tokens": 2}
        )

    def test_a_limit_that_can_be_raised_names_its_flag(self):
        assert "--proxy-max-n" in refused({"n": 9})
        assert "--proxy-max-stops" in refused({"stop": list("abcd")})

    def test_a_field_has_the_name_that_the_client_used(self):
        with pytest.raises(RequestError, match="^max_tokens is -1"):
            check_sampling_params({"max_new_tokens": -1}, BOUNDS, {"max_new_tokens": "max_tokens"}.get)

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(
        st.dictionaries(
            st.sampled_from([*SamplingFields.model_fields, "max_tokens", "x", ""]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                max_leaves=5,
            ),
            max_size=4,
        )
    )
    def test_anything_is_taken_or_refused_in_one_sentence(self, params):
        try:
            check_sampling_params(params, BOUNDS)
        except RequestError as error:
            assert 0 < len(str(error)) < 1000 and "\n" not in str(error)
            return
        from sglang.srt.sampling.sampling_params import SamplingParams

        taken = SamplingParams(**{name: value for name, value in params.items() if name != "stop_regex"})
        taken.normalize(_Tokenizer())
        with suppress(ValueError):  # SGLang's own 400: at least 129 tokens, of the 128 that it gives by default
            taken.verify(10)


class _Tokenizer:
    """What `SamplingParams.normalize` asks a tokenizer for."""

    def encode(self, text, add_special_tokens):
        return list(text)


class TestRequests:
    @pytest.mark.parametrize(
        "fields",
        [
            {"text": "x"}, {"text": ["x", "y"]}, {"input_ids": [0, 9]}, {"input_ids": [[0], [9, 1]]},
            {"text": "x", "return_logprob": True, "top_logprobs_num": 9, "token_ids_logprob": [0, 9]},
            {"text": ["x", "y"], "return_logprob": [True, False], "top_logprobs_num": [3, 0]},
            {"text": ["x", "y"], "return_logprob": True, "token_ids_logprob": [[0], None]},
            {"text": ["x", "y"], "rid": ["a", "b"], "extra_key": ["k", "l"], "sampling_params": [{}, {"n": 1}]},
            {"text": "x", "stream": True, "rid": "a", "logprob_start_len": -1, "token_ids_logprob": []},
        ],
    )  # fmt: skip
    def test_what_works_is_taken(self, request_class, fields):
        check_request(request_class(**fields), BOUNDS, guided=True)

    @pytest.mark.parametrize(
        ("fields", "sentence"),
        [
            ({}, "no prompt"), ({"text": ""}, "text is ''"), ({"text": [""]}, "text.*empty prompt"),
            ({"text": ["a", ""]}, "text.1. is ''"), ({"input_ids": []}, "no prompt"), ({"text": []}, "no prompt"),
            ({"input_ids": [[]]}, "no prompt"), ({"input_ids": [[], [5]]}, "input_ids.0. is ..: an empty"),
            ({"input_ids": [[5], []]}, "input_ids.1. is ..: an empty"), ({"input_ids": [1, 10]}, "it has 10.* 0 to 9"),
            ({"input_ids": [-1]}, "it has -1"), ({"input_ids": [True]}, "true is no token id"),
            ({"input_ids": ["5"]}, "no token id"), ({"input_ids": [5, [6]]}, "no token id"),
            ({"input_ids": [[5], 6]}, "should be a list"), ({"text": 5}, "text is 5"), ({"text": [5]}, "text.0. is 5"),
            ({"text": "x", "input_ids": [1]}, "text and input_ids"), ({"text": "x" * 3201}, "3,201 characters"),
            ({"text": "x", "rid": []}, "rid is a list"), ({"text": "x", "rid": ["a", "b"]}, "rid is a list"),
            ({"text": "x", "rid": "a\nb"}, "rid"), ({"text": "x", "rid": "a" * 600}, "rid"),
            ({"text": "x", "rid": 5}, "rid"),
            ({"text": "x", "extra_key": ["a"]}, "extra_key is a list"), ({"text": "x", "extra_key": 5}, "extra_key"),
            ({"text": ["x", "y"], "rid": ["a"]}, "rid has 1 values and the request 2"),
            ({"text": ["x", "y"], "sampling_params": [{}]}, "sampling_params has 1 values"),
            ({"text": ["x", "y"], "return_logprob": [True]}, "return_logprob has 1 values"),
            ({"text": "x", "return_logprob": True, "top_logprobs_num": 10}, "top_logprobs_num is 10"),
            ({"text": "x", "return_logprob": True, "top_logprobs_num": 11}, "knows 10 ids"),
            ({"text": "x", "return_logprob": True, "top_logprobs_num": -1}, "top_logprobs_num is -1"),
            ({"text": "x", "return_logprob": True, "token_ids_logprob": [10]}, "token_ids_logprob.0. is 10.*0 to 9"),
            ({"text": "x", "return_logprob": True, "token_ids_logprob": [[1]]}, "token_ids_logprob has 1 lists"),
            ({"text": "x", "top_logprobs_num": 3}, "return_logprob is not"),
            ({"text": "x", "token_ids_logprob": [3]}, "return_logprob is not"),
            ({"text": "x", "return_logprob": "yes"}, "return_logprob"),
            ({"text": "x", "logprob_start_len": -5}, "logprob_start"),
            ({"text": "x", "logprob_start_len": 2**40}, "logprob_start"),
            ({"text": "x", "priority": 1}, "enable-priority"),
            ({"text": ["x"] * 17}, "17 answers"), ({"text": ["x"] * 3, "sampling_params": {"n": 6}}, "18 answers"),
            ({"text": "x", "sampling_params": 5}, "sampling_params is 5"),
            ({"text": "x", "modalities": 5}, "modalities"),
            ({"text": "x", "custom_labels": {"a": 5}}, "custom_labels"),
            ({"text": "x", "custom_labels": [5]}, "custom_labels"),
        ],
        ids=lambda value: str(value)[:40],
    )  # fmt: skip
    def test_what_does_not_is_refused(self, request_class, fields, sentence):
        with pytest.raises(RequestError, match=sentence) as error:
            check_request(request_class(**fields), BOUNDS, guided=True)
        assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("fields", "logprobs"),
    [
        ({"text": "x", "sampling_params": {"n": 8}}, None),
        ({"text": "x", "return_logprob": True, "top_logprobs_num": 9}, 100 * 10),  # the context, not 128
        ({"text": "x", "return_logprob": True, "sampling_params": {"n": 8, "max_new_tokens": None}}, 8 * 100),
        ({"text": "x", "return_logprob": True, "sampling_params": {"max_new_tokens": 5}, "token_ids_logprob": [1]}, 10),
        ({"text": ["x", "y"], "return_logprob": [True, False], "top_logprobs_num": [4, 0]}, 500),
        ({"text": ["x", "y"], "return_logprob": True, "token_ids_logprob": [[0, 1, 2], None]}, 500),
        ({"text": "four", "return_logprob": True, "logprob_start_len": 0, "sampling_params": {"max_new_tokens": 1}}, 5),
        ({"input_ids": [[1], [1, 2]], "return_logprob": True, "logprob_start_len": 0}, 203),
    ],
)  # fmt: skip
def test_logprobs_of_a_request_are_bounded_in_all(sglang, fields, logprobs):
    """Kills: limits that multiply, so that one request fills the memory of the process that all pass."""
    from sglang.srt.managers.io_struct import GenerateReqInput

    if logprobs is not None:
        too_few = BOUNDS._replace(limits=LIMITS.model_copy(update={"max_logprobs_in_all": logprobs - 1}))
        with pytest.raises(RequestError, match=f"may get {logprobs:,} logprobs, .*--proxy-max-logprobs-in-all"):
            check_request(GenerateReqInput(**fields), too_few, guided=True)
    enough = BOUNDS._replace(limits=LIMITS.model_copy(update={"max_logprobs_in_all": logprobs or 0}))
    check_request(GenerateReqInput(**fields), enough, guided=True)


@pytest.mark.parametrize(("value", "levels"), [(5, 0), ([], 1), ({"a": [{}]}, 3), ([[], [[]]], 3), (None, 0)])
def test_depth(value, levels):
    assert depth(value) == levels


def test_depth_needs_no_stack():
    value = []
    for _ in range(100_000):
        value = [value]
    assert depth(value) == 100_001
    while value:  # so that the garbage collector needs none either
        value = value.pop()
