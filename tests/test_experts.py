"""What a request asks of several experts: which models read it, what is told of it, what can't be asked together."""

from __future__ import annotations

import json
import re

import pytest
from sglang.lang.ir import SglArgument

from sgl_proxythinker.config import ProxyConfig, build_config
from sgl_proxythinker.errors import LaunchError, RequestError
from sgl_proxythinker.frontend.proxy_gen import proxy_gen
from sgl_proxythinker.guidance import COMMON, Defaults, Guidance, read_guidance, readers_of
from sgl_proxythinker.launch.command_line import add_flags, take_flags
from sgl_proxythinker.laws import read_law

PATHS = {"expert_path": "E", "amateur_path": "A"}
PAIRS = {"expert": "amateur", "math": "amateur", "charts": "charts-amateur"}
HALF = Guidance.of(0.5)
SERVER = Defaults(0.5)


def asked(**params):
    return read_guidance(params, SERVER, PAIRS)


class TestRequests:
    def test_a_named_expert_steers_with_its_own_amateur(self):
        assert asked(proxy_expert="charts", proxy_alpha=0.8).contrasts == (("charts", "charts-amateur", 0.8, 0.8),)
        assert asked(proxy_expert="math").contrasts == (("math", "amateur", 0.5, 0.5),), "the server's strength"
        assert asked(proxy_expert="expert") == HALF == asked()

    def test_several_steer_with_a_strength_each(self):
        guidance = asked(proxy_experts={"charts": 0.3, "math": 0.4})
        assert guidance.contrasts == (("math", "amateur", 0.4, 0.4), ("charts", "charts-amateur", 0.3, 0.3))
        assert guidance == asked(proxy_experts={"math": 0.4, "charts": 0.3}), "in whatever order they are named"
        assert asked(proxy_experts={"math": 0.4, "charts": 0}) == asked(proxy_expert="math", proxy_alpha=0.4)
        assert asked(proxy_experts={"math": 0.0, "charts": -0.0}) == Guidance()

    def test_only_the_models_that_are_asked_for_read_it(self):
        assert asked(proxy_expert="math").reads == {"base", "math", "amateur"}
        assert asked(proxy_expert="charts").reads == {"base", "charts", "charts-amateur"}
        assert asked(proxy_experts={"math": 1, "charts": 1}).reads == {
            "base",
            "math",
            "amateur",
            "charts",
            "charts-amateur",
        }
        assert asked(proxy_expert="math", proxy_alpha=0).reads == {"base"}
        assert asked(proxy_expert="math", proxy_alpha=0, proxy_trace=True).reads == {"base", "math", "amateur"}

    def test_each_set_of_readers_has_a_part_of_the_tree(self):
        """Kills: a prefix that one expert has read, used for another; one that nobody knows to be finite."""
        wishes = [
            {},
            {"proxy_expert": "math"},
            {"proxy_expert": "charts"},
            {"proxy_experts": {"math": 1, "charts": 1}},
            {"proxy_experts": {"math": 1, "expert": 1}},
            {"proxy_alpha": 0},
            {"proxy_alpha": 0, "proxy_trace": True},
            {"proxy_expert": "math", "proxy_alpha": 0, "proxy_trace": True},
        ]
        guidances = [asked(**wish) for wish in wishes]
        for also in (frozenset(), frozenset({"expert"})):
            keys = [guidance.tree_key("k", also) for guidance in guidances]
            assert len(set(keys)) == len(keys)
            for guidance, key in zip(guidances, keys, strict=True):
                assert readers_of(key) == guidance.reads | also
        assert guidances[0].tree_key("k", frozenset({"expert"})) == "k", (
            "the common part is theirs that all three steer"
        )
        drafted = asked(proxy_expert="math").tree_key(None, frozenset({"expert"}))
        both = asked(proxy_experts={"math": 1, "expert": 1}).tree_key(None)
        assert readers_of(drafted) == readers_of(both) == COMMON | {"math"} and drafted != both

    def test_what_is_told_reads_as_what_was_asked(self):
        for wish in (
            {"proxy_expert": "math", "proxy_alpha": 0.8},
            {"proxy_expert": "charts", "proxy_alpha": 0.8, "proxy_amateur_alpha": 0.0, "proxy_clip": None},
            {"proxy_experts": {"math": 0.4, "charts": -0.3}, "proxy_clip": 2.0},
            {"proxy_experts": {"math": 0.4, "expert": 1}, "proxy_law": {"kind": "entropy", "above": 0.5}},
            {"proxy_expert": "math", "proxy_law": {"kind": "divergence"}},
        ):
            guidance = asked(**wish)
            assert asked(**guidance.as_params()) == guidance
            carried = json.loads(json.dumps(guidance))
            assert Guidance.of_carried(carried) == guidance
        traced = asked(proxy_expert="charts", proxy_trace=True)
        assert Guidance.of_carried(json.loads(json.dumps(traced))) == traced and traced.trace == (
            "charts",
            "charts-amateur",
        )
        assert "proxy_expert" not in HALF.as_params(), "servers of one expert tell what they told"

    @pytest.mark.parametrize(
        ("params", "sentence"),
        [
            ({"proxy_expert": "maths"}, "proxy_expert is 'maths', .* expert, math, charts: name one"),
            ({"proxy_expert": "amateur"}, "proxy_expert is 'amateur', .*experts are"),
            ({"proxy_expert": 5}, "proxy_expert is 5: send the name"),
            ({"proxy_experts": {"math": 1, "x": 1}}, "proxy_experts names 'x', and this server's experts are"),
            ({"proxy_experts": {}}, "proxy_experts is an object of 0 names: send an object with a strength for each"),
            ({"proxy_experts": ["math"]}, "proxy_experts is .*send an object"),
            ({"proxy_experts": {"math": "1"}}, "proxy_experts of 'math' is '1': send an object"),
            ({"proxy_experts": {"math": True}}, "proxy_experts of 'math' is true: send an object"),
            ({"proxy_experts": {"math": 11}}, r"proxy_experts of 'math' is 11: .*\[-10, 10\]"),
            ({"proxy_experts": {"math": 1}, "proxy_alpha": 1}, "leave proxy_alpha out"),
            ({"proxy_experts": {"math": 1}, "proxy_amateur_alpha": 1}, "leave proxy_amateur_alpha out"),
            ({"proxy_experts": {"math": 1}, "proxy_expert": "math"}, "leave proxy_expert out"),
            ({"proxy_experts": {"math": 1}, "proxy_trace": True}, "proxy_trace tells of one expert"),
            ({"proxy_experts": {"math": 1}, "proxy_law": {"kind": "divergence"}}, "and proxy_law one strength"),
            (
                {"proxy_experts": {"math": 1}, "proxy_law": {"kind": "schedule", "points": [[0, 1.0]]}},
                "and proxy_law one strength",
            ),
        ],
    )
    def test_what_has_no_meaning_is_a_sentence(self, params, sentence):
        with pytest.raises(RequestError, match=sentence):
            asked(**params)

    def test_a_server_of_the_base_alone_has_none(self):
        for params in ({"proxy_expert": "math", "proxy_alpha": 0}, {"proxy_experts": {"math": 0.0}}):
            with pytest.raises(RequestError, match="'math', and this server runs the base model alone"):
                read_guidance(params, Defaults(), {})

    def test_strengths_that_are_named_stand_over_the_servers_law(self):
        ruled = Defaults(0.5, law=read_law({"kind": "divergence"}), clip=3.0)
        named = read_guidance({"proxy_experts": {"math": 1.0}}, ruled, PAIRS)
        assert named.law is None and named.clip == 3
        assert read_guidance({"proxy_expert": "math"}, ruled, PAIRS).law == ruled.law, "it says no strength"


def flags_of(*arguments):
    import argparse

    parser = argparse.ArgumentParser()
    add_flags(parser)
    flags = take_flags(parser.parse_args(["--plugin", "proxythinker", *arguments]))
    return {name: value for name, value in flags.items() if name in (*ProxyConfig.model_fields, "experts")}


class TestSettings:
    def test_experts_come_from_flags_and_from_the_file(self, tmp_path):
        file = tmp_path / "experts.yaml"
        file.write_text(
            "{expert_path: E, amateur_path: A, experts: {"
            "charts: {path: C, amateur_path: CA, amateur: {dtype: float16}}, "
            "math: {path: old, revision: v2}, again: {path: G, amateur_path: A}}}"
        )
        config = build_config(flags_of("--proxy-expert", "math=M=1", "--proxy-expert", "more=O"), str(file))
        assert {role: model.path for role, model in config.small_models.items()} == {
            "expert": "E", "amateur": "A", "charts": "C", "charts-amateur": "CA", "math": "M=1", "again": "G",
            "more": "O",
        }  # fmt: skip
        assert config.pairs == {
            "expert": "amateur", "charts": "charts-amateur", "math": "amateur", "again": "amateur", "more": "amateur"
        }  # fmt: skip
        assert config.small_models["charts-amateur"].options.dtype == "float16"
        assert config.small_models["math"].options.revision == "v2", "which the flag says nothing of"
        assert config.guidance == HALF

    def test_one_named_expert_is_the_default_one(self):
        flags = flags_of("--proxy-amateur-path", "A", "--proxy-expert", "math=M", "--proxy-expert", "expert=E")
        assert build_config(flags, None).pairs == {"expert": "amateur", "math": "amateur"}
        with pytest.raises(LaunchError, match="both name the expert of requests that name none"):
            build_config(
                flags_of("--proxy-expert-path", "F", "--proxy-amateur-path", "A", "--proxy-expert", "expert=E"), None
            )

    def test_names_that_collide_with_no_models_are_free(self):
        """Kills: a name that is refused for an amateur which the expert does not have."""
        experts = {"m" * 64: "M", "math": "N", "math-amateur": "O"}
        assert ProxyConfig(**PATHS, experts=experts).pairs == dict.fromkeys(("expert", *experts), "amateur")

    def test_every_rank_says_where_each_is(self):
        config = ProxyConfig(**PATHS, experts={"math": "M", "charts": {"path": "C", "amateur_path": "CA"}})
        assert config.describe()["experts"] == {
            "math": {"path": "M", "amateur": "A"}, "charts": {"path": "C", "amateur": "CA"}
        }  # fmt: skip
        told = config.describe_rank(("base", "math"))
        assert (told["expert"], told["amateur"]) == (None, None)
        assert told["experts"] == {"math": {"path": "M", "amateur": None}, "charts": {"path": None, "amateur": None}}

    @pytest.mark.parametrize(
        ("experts", "sentence"),
        [
            ({"base": "M"}, "'base' is the name of a model that every server has"),
            ({"expert": "M"}, "'expert' is the name of a model that every server has"),
            ({"Math": "M"}, "'Math' can't name a model"),
            ({"a+b": "M"}, "can't name a model"),
            ({"m" * 57: {"path": "M", "amateur_path": "N"}}, "m-amateur' can't name a model"),
            (
                {"x": {"path": "M", "amateur_path": "N"}, "x-amateur": "M"},
                "'x-amateur' is the name of the amateur of 'x'",
            ),
            ({"math": {"amateur_path": "N"}}, "experts.math.path"),
            ({"math": {"path": "M", "amateur": {"dtype": "float16"}}}, "name it by amateur_path"),
            ({"math": {"path": "M", "alpha": 1}}, "experts.math.alpha"),
            (["math"], "experts"),
        ],
    )
    def test_what_cant_be_is_told_where_it_was_written(self, experts, sentence, tmp_path):
        file = tmp_path / "experts.json"
        file.write_text(json.dumps(PATHS | {"experts": experts}))
        with pytest.raises(LaunchError, match=sentence):
            build_config({}, str(file))

    @pytest.mark.parametrize("said", ["math", "=M", "math=", ""])
    def test_a_flag_has_a_name_and_a_path(self, said, capsys):
        with pytest.raises(SystemExit):
            flags_of("--proxy-expert", said)
        assert re.search(r"--proxy-expert: '.*' is not NAME=PATH", capsys.readouterr().err)

    def test_a_name_twice_and_experts_without_a_default_are_refused(self):
        with pytest.raises(LaunchError, match="--proxy-expert names an expert twice: math, math"):
            build_config(flags_of("--proxy-expert", "math=M", "--proxy-expert", "math=N"), None)
        with pytest.raises(LaunchError, match="--proxy-expert-path is missing"):
            build_config(flags_of("--proxy-expert", "math=M", "--proxy-amateur-path", "A"), None)
        with pytest.raises(LaunchError, match="--proxy-expert given without --proxy-expert-path"):
            build_config(flags_of("--proxy-expert", "math=M"), None)


def test_a_programs_argument_may_stand_inside_of_a_value():
    """Kills: a batch of programs that ends while its common beginning is traced with stand-ins."""
    stand_in = SglArgument("a", 0)
    for option in ({"experts": {"math": stand_in}}, {"law": [{"kind": "entropy", "above": stand_in}]}):
        assert proxy_gen("answer", max_tokens=1, **option).name == "answer"
    with pytest.raises(RequestError, match="proxy_experts of 'math'"):
        proxy_gen("answer", experts={"math": "a"})
