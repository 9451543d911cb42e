"""Laws of what a request asks of guidance: read once, canonical, and carried to every process as it is."""

import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guidance import COMMON, Contrast, Defaults, Guidance, read_guidance, readers_of
from sgl_proxythinker.laws import read_law

HALF = Guidance.of(0.5)
SERVER = Defaults(0.5)
STEERS = {"kind": "divergence"}
WEIGHTS = st.none() | st.floats(-10, 10) | st.integers(-10, 10)
WISHES = st.fixed_dictionaries(
    {},
    optional={
        "proxy_alpha": WEIGHTS,
        "proxy_amateur_alpha": WEIGHTS,
        "proxy_plausible": st.none() | st.floats(0, 1),
        "proxy_trace": st.none() | st.booleans(),
    },
)
KEYS = st.none() | st.text(st.characters(exclude_categories=["Cc", "Cs"]))


def test_absent_means_the_servers_default():
    for nothing in (None, {}, {"proxy_alpha": None}, {"proxy_trace": None}):
        assert read_guidance(nothing, SERVER) == HALF
        assert read_guidance(nothing, Defaults()) == Guidance()


def test_the_amateur_follows_alpha_unless_it_has_a_number_of_its_own():
    assert read_guidance({"proxy_alpha": 2}, SERVER).weights == (2.0, 2.0)
    assert read_guidance({"proxy_alpha": 0.8, "proxy_amateur_alpha": 0}, SERVER).weights == (0.8, 0.0)
    assert read_guidance({"proxy_amateur_alpha": 0}, SERVER).weights == (0.5, 0.0)
    assert read_guidance({"proxy_amateur_alpha": 1}, Defaults()).weights == (0.0, 1.0)


@pytest.mark.parametrize("alpha", [-10, 10, 0, -0.0, 1e-9])
def test_the_whole_range_is_allowed(alpha):
    assert read_guidance({"proxy_alpha": alpha}, SERVER).weights == (alpha, alpha)


@pytest.mark.parametrize(
    ("asked", "server", "told"),
    [
        ({"proxy_clip": 1.0}, Defaults(0.5), "proxy_clip cuts the difference .*: leave one out"),
        ({}, Defaults(0.5, clip=1.0), "this server's proxy_clip cuts .*: leave proxy_amateur_alpha out"),
        ({"proxy_law": STEERS}, Defaults(0.5), "and proxy_law says one strength for both: leave one out"),
        ({}, Defaults(0.5, read_law(STEERS)), "this server's proxy_law says one strength .*: send proxy_alpha too"),
    ],
)
def test_two_weights_are_refused_beside_what_means_one_and_told_whose_it_is(asked, server, told):
    """Kills: advice to leave out what was not sent."""
    with pytest.raises(RequestError, match=told):
        read_guidance({"proxy_amateur_alpha": 0.0, **asked}, server)


def test_two_weights_take_the_place_of_the_servers_law():
    server = Defaults(0.5, read_law(STEERS))
    assert read_guidance({"proxy_amateur_alpha": 0.0, "proxy_alpha": 1.0}, server).weights == (1.0, 0.0)


@pytest.mark.parametrize("key", ["proxy_alpha", "proxy_amateur_alpha"])
@pytest.mark.parametrize(
    "value",
    [True, False, "0.5", "", [0.5], {"x": 1}, math.nan, math.inf, -math.inf, 10.001, -11, 10**400, 1 + 2j],
    ids=lambda value: repr(value)[:12],
)
def test_what_is_no_number_in_range_is_refused_by_name(key, value):
    with pytest.raises(RequestError, match=rf"^{key} is .*-10, 10") as refusal:
        read_guidance({key: value}, SERVER)
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize("custom_params", [[], "x", 3, True])
def test_custom_params_must_be_an_object(custom_params):
    with pytest.raises(RequestError, match="not an object"):
        read_guidance(custom_params, SERVER)


@pytest.mark.parametrize("key", ["proxy_aplha", "thinking_budget", "__req__", 7, "proxy_guidance", "x" * 10_000])
def test_a_key_that_nobody_reads_is_an_error_not_a_default(key):
    with pytest.raises(RequestError, match="has an unknown key .*known are proxy_alpha") as refusal:
        read_guidance({key: 1.0}, SERVER)
    assert len(str(refusal.value)) < 300


def test_a_trace_is_asked_for_by_true_alone():
    assert read_guidance({"proxy_trace": True}, SERVER) == Guidance.of(0.5, trace=True)
    for nothing in ({"proxy_trace": None}, {"proxy_trace": False}, {"proxy_alpha": 1}):
        assert not read_guidance(nothing, SERVER).trace
    for wrong in (1, 0, "true", [True], 1.0):
        with pytest.raises(RequestError, match="proxy_trace is .*send true"):
            read_guidance({"proxy_trace": wrong}, SERVER)


@pytest.mark.parametrize("value", [True, "0.1", -0.1, 1.001, math.nan, math.inf, [0.1]])
def test_what_is_no_share_is_refused(value):
    with pytest.raises(RequestError, match=r"^proxy_plausible is .*: send a share of the probability"):
        read_guidance({"proxy_plausible": value}, SERVER)


def test_a_share_goes_with_any_strength_and_none_is_no_share():
    assert read_guidance({"proxy_plausible": 0}, SERVER) == read_guidance({"proxy_plausible": -0.0}, SERVER) == HALF
    assert read_guidance({"proxy_plausible": 1}, SERVER) == Guidance.of(0.5, plausible=1.0)
    alone = read_guidance({"proxy_plausible": 0.1, "proxy_alpha": 0}, SERVER)
    assert alone.is_base_alone and alone.reads == {"base"} and alone.plausible == 0.1
    default = Defaults(0.5, plausible=0.1)
    assert read_guidance({"proxy_alpha": 2}, default) == Guidance.of(2.0, plausible=0.1), (
        "the server's, where none is said"
    )
    assert read_guidance({"proxy_plausible": 0}, default) == HALF


def test_only_two_zeros_are_the_base_alone():
    assert Guidance.of(0.0) == Guidance.of(-0.0, 0) == Guidance() and Guidance().is_base_alone
    assert not Guidance.of(0.0, 1.0).is_base_alone and not Guidance.of(1.0, 0.0).is_base_alone
    assert Guidance().reads == {"base"}
    for reads_all in (Guidance.of(1.0), Guidance.of(0.0, 1.0), Guidance.of(0.0, trace=True)):
        assert reads_all.reads == {"base", "expert", "amateur"}


def test_a_server_whose_default_is_the_base_alone_keeps_its_other_defaults():
    """Kills: a clip or a strength that is lost because the default steers nothing."""
    off = Defaults(0.0, clip=4.0)
    assert off.guidance == Guidance()
    assert read_guidance({"proxy_alpha": 1}, off) == Guidance.of(1.0, clip=4.0)
    assert read_guidance({"proxy_experts": {"expert": 1}}, off) == Guidance.of(1.0, clip=4.0)
    gated = Defaults(0.0, law=read_law({"kind": "entropy", "above": 1.0}))
    assert read_guidance({"proxy_amateur_alpha": 1}, gated) == Guidance.of(0.0, 1.0, law=gated.law)
    ruled = Defaults(0.5, law=read_law({"kind": "schedule", "points": [[0, 0.0]]}))
    assert ruled.guidance == Guidance()
    assert read_guidance({"proxy_law": []}, ruled) == HALF, "the constant, also where the server has a law"


@given(WISHES, WEIGHTS)
def test_what_is_told_reads_as_what_was_asked(wish, default):
    """Of an answer's `meta_info`, sent again, comes the same guidance."""
    guidance = read_guidance(wish, Defaults(default or 0.0))
    told = guidance.as_params() | ({"proxy_trace": True} if guidance.trace else {})
    assert read_guidance(told, SERVER) == guidance
    assert not any(math.copysign(1, weight) < 0 for weight in guidance.weights if weight == 0), "-0 is 0"


@given(WISHES)
def test_it_is_the_same_after_every_way_to_a_scheduler(wish):
    guidance = read_guidance(wish, SERVER)
    assert Guidance.of_carried(pickle.loads(pickle.dumps(guidance))) == guidance
    carried = Guidance.of_carried(json.loads(json.dumps(guidance)))
    assert carried == guidance and all(type(contrast) is Contrast for contrast in carried.contrasts)


@given(KEYS, KEYS, WISHES, st.text())
def test_parts_of_the_tree_are_told_apart_by_their_beginning(one, other, wish, appended):
    """SGLang appends to a key, so what stands at its end says nothing."""
    guidance, base = read_guidance(wish, SERVER), Guidance()
    assert readers_of(one) == COMMON, "clients can't name a part"
    assert readers_of(base.tree_key(one) + appended) == {"base"}
    assert (base.tree_key(one) == base.tree_key(other)) == ((one or "") == (other or ""))
    if guidance.reads == base.reads:
        assert guidance.tree_key(one) == base.tree_key(one)
    elif guidance.is_base_alone:  # traced: nothing ends it where a small model is damaged
        assert guidance.tree_key(one) not in (one, base.tree_key(one))
        assert readers_of(guidance.tree_key(one) + appended) == COMMON
    else:
        assert guidance.tree_key(one) == one and readers_of(guidance.tree_key(one)) == COMMON


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_what_is_appended_never_makes_two_keys_one(one, other, to_one, to_other):
    whole = Guidance().tree_key(one) + to_one, Guidance().tree_key(other) + to_other
    assert (whole[0] == whole[1]) == (one == other and to_one == to_other)
