"""Laws of the per-request numbers."""

import math

import pytest

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.strength import Strength, asks_for_trace, read_strength


def test_absent_means_the_servers_default():
    for nothing in (None, {}, {"thinking_budget": 3}, {"proxy_alpha": None}):
        assert read_strength(nothing, 0.7) == Strength(0.7, 0.7)


def test_the_amateur_follows_alpha_unless_it_has_a_number_of_its_own():
    assert read_strength({"proxy_alpha": 2}, 0.5) == Strength(2.0, 2.0)
    assert read_strength({"proxy_alpha": 0.8, "proxy_amateur_alpha": 0}, 0.5) == Strength(0.8, 0.0)
    assert read_strength({"proxy_amateur_alpha": 0}, 0.5) == Strength(0.5, 0.0)


@pytest.mark.parametrize("alpha", [-10, 10, 0, -0.0, 1e-9])
def test_the_whole_range_is_allowed(alpha):
    assert read_strength({"proxy_alpha": alpha}, 0.5).expert == alpha


@pytest.mark.parametrize("key", ["proxy_alpha", "proxy_amateur_alpha"])
@pytest.mark.parametrize(
    "value",
    [True, False, "0.5", "", [0.5], {"x": 1}, math.nan, math.inf, -math.inf, 10.001, -11, 10**400, 1 + 2j],
    ids=lambda value: repr(value)[:12],
)
def test_what_is_no_number_in_range_is_refused_by_name(key, value):
    with pytest.raises(RequestError, match=rf"{key} is .*-10, 10"):
        read_strength({key: value}, 0.5)


@pytest.mark.parametrize("custom_params", [[], "x", 3, True])
def test_custom_params_must_be_an_object(custom_params):
    with pytest.raises(RequestError, match="not an object"):
        read_strength(custom_params, 0.5)


def test_a_misspelt_key_is_an_error_not_a_default():
    with pytest.raises(RequestError, match="'proxy_aplha'.*known are"):
        read_strength({"proxy_aplha": 1.0}, 0.5)


def test_other_peoples_keys_pass():
    assert read_strength({"__req__": object(), 7: "x", "proxyish": 1}, 0.5) == Strength(0.5, 0.5)


def test_only_two_zeros_are_the_base_alone():
    assert Strength(0.0, 0.0).is_base_alone
    assert not Strength(0.0, 1.0).is_base_alone and not Strength(1.0, 0.0).is_base_alone


def test_a_trace_is_asked_for_by_true_alone():
    assert asks_for_trace({"proxy_trace": True})
    for nothing in (None, {}, {"proxy_trace": None}, {"proxy_trace": False}, {"proxy_alpha": 1}):
        assert not asks_for_trace(nothing)
    for wrong in (1, 0, "true", [True], 1.0):
        with pytest.raises(RequestError, match="proxy_trace is .*send true"):
            asks_for_trace({"proxy_trace": wrong})
    assert read_strength({"proxy_trace": True}, 0.5) == Strength(0.5, 0.5)
