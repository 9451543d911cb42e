"""What a person configures, and the sentences they get when it is wrong."""

import copy
import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest

from roster import TRIPLE
from sgl_proxythinker.config import ProxyConfig, build_config
from sgl_proxythinker.errors import LaunchError, RequestError
from sgl_proxythinker.guidance import Guidance, read_guidance
from sgl_proxythinker.launch.server_args import check_preferred
from sgl_proxythinker.limits import Limits, build_limits
from sgl_proxythinker.requests.admission import admit_request
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT

NO_FLAGS = dict.fromkeys(("expert_path", "amateur_path", "alpha", "placement", "tp_size"))
PATHS = {"expert_path": "E", "amateur_path": "A"}


def test_a_path_is_a_path():
    paths = {name: Path(path) for name, path in PATHS.items()}
    assert ProxyConfig(**paths) == ProxyConfig(**PATHS)


def test_no_flags_is_plain_sglang():
    assert build_config(NO_FLAGS, None) is None


def test_flags_win_over_the_file(tmp_path):
    file = tmp_path / "proxies.yaml"
    file.write_text("{expert_path: E, amateur_path: A, alpha: 0.25, expert: {revision: v2, dtype: float16}}")
    config = build_config({**NO_FLAGS, "alpha": 0.75}, str(file))
    assert (config.expert_path, config.amateur_path, config.alpha) == ("E", "A", 0.75)
    assert config.small_models[EXPERT].options.revision == "v2"
    assert config.small_models[AMATEUR].options.revision is None


@pytest.mark.parametrize(("given", "missing"), [("expert_path", "amateur_path"), ("amateur_path", "expert_path")])
def test_one_path_without_the_other_is_refused(given, missing):
    with pytest.raises(LaunchError, match=rf"{missing.replace('_', '-')} is missing.*needs both"):
        build_config({**NO_FLAGS, given: "X"}, None)


def test_alpha_without_paths_is_refused():
    with pytest.raises(LaunchError, match="--proxy-alpha given without"):
        build_config({**NO_FLAGS, "alpha": 1.0}, None)


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), 11, -10.5, True, "much"])
def test_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(LaunchError, match="alpha"):
        build_config({**NO_FLAGS, **PATHS, "alpha": alpha}, None)


@pytest.mark.parametrize("name", ["placement", "tp_size"])
def test_a_placement_without_paths_is_refused(name):
    value = {"placement": "split", "tp_size": 2}[name]
    with pytest.raises(LaunchError, match=f"--proxy-{name.replace('_', '-')} given without"):
        build_config({**NO_FLAGS, name: value}, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [("placement", "everywhere"), ("placement", ""), ("placement", 2), ("tp_size", 0), ("tp_size", -1),
     ("tp_size", 1.5), ("tp_size", "two")],
)  # fmt: skip
def test_a_placement_that_does_not_exist_is_refused_by_flag(name, value):
    with pytest.raises(LaunchError, match=f"--proxy-{name.replace('_', '-')}: .*got {value!r}"):
        build_config({**NO_FLAGS, **PATHS, name: value}, None)


def test_a_placement_can_come_from_the_file(tmp_path):
    file = tmp_path / "proxies.yaml"
    file.write_text("{expert_path: E, amateur_path: A, placement: dedicated, tp_size: 2}")
    config = build_config(NO_FLAGS, str(file))
    assert (config.placement, config.tp_size) == ("dedicated", 2)
    config = build_config({**NO_FLAGS, "placement": "split", "tp_size": 1}, str(file))
    assert (config.placement, config.tp_size) == ("split", 1)


@pytest.mark.parametrize("text", ["expert_pth: E", "expert: {quantisation: awq}"])
def test_unknown_keys_are_refused_by_name(tmp_path, text):
    file = tmp_path / "proxies.yaml"
    file.write_text(text)
    with pytest.raises(LaunchError, match="expert-pth|quantisation"):
        build_config({**NO_FLAGS, **PATHS}, str(file))


@pytest.mark.parametrize("text", ["- a list", "{unclosed: ", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path, text):
    file = tmp_path / "proxies.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(LaunchError, match="proxies.yaml"):
        build_config(NO_FLAGS, str(file))


def test_a_rank_describes_the_proxies_that_it_runs_and_no_other():
    config = ProxyConfig(**PATHS, placement="dedicated", tp_size=1, speculate="off")
    whole = {"expert": "E", "amateur": "A", "experts": {}, "alpha": 0.5, "law": None, "clip": None, "plausible": None,
             "placement": "dedicated", "streams": True, "speculate": "off"}  # fmt: skip
    assert config.describe() == config.describe_rank(TRIPLE) == whole
    assert config.describe_rank((BASE,)) == whole | {"expert": None, "amateur": None}
    assert config.describe_rank((AMATEUR,)) == whole | {"expert": None}


def test_it_is_frozen_and_travels():
    config = ProxyConfig(**PATHS)
    with pytest.raises(ValueError):
        config.alpha = 2.0
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config


@pytest.mark.parametrize(
    ("said", "told", "drafts", "asks"),
    [(None, "auto", 3, False), ("auto", "auto", 3, True), ("3", 3, 3, True), ("off", "off", 0, False)],
)
def test_drafts_where_they_pay_are_the_default_and_no_wish(tmp_path, said, told, drafts, asks):
    """By the flag, in the file, where YAML makes a bool of `off`, and for the `Engine`."""
    file = tmp_path / "proxies.yaml"
    file.write_text("expert_path: E\namateur_path: A\n" + ("" if said is None else f"speculate: {said}\n"))
    for config in (
        build_config({**NO_FLAGS, **PATHS, "speculate": said}, None),
        build_config(NO_FLAGS, str(file)),
        ProxyConfig(**PATHS, **({} if said is None else {"speculate": said})),
    ):
        settled = config.model_copy(update={"placement": "shared"})  # as by a start
        assert (settled.describe()["speculate"], settled.drafts, settled.asks_for_drafts) == (told, drafts, asks)
        assert settled.without_drafts().describe() == settled.describe() | {"speculate": "off"}


@pytest.mark.parametrize(("said", "streams"), [("on", True), ("off", False), (None, True)])
def test_streams_are_on_unless_they_are_switched_off(tmp_path, said, streams):
    """By the flag and in the file, where YAML makes a bool of `off`."""
    assert build_config({**NO_FLAGS, **PATHS, "streams": said}, None).streams is streams
    file = tmp_path / "proxies.yaml"
    file.write_text("expert_path: E\namateur_path: A\n" + ("" if said is None else f"streams: {said}\n"))
    assert build_config(NO_FLAGS, str(file)).streams is streams


def test_preferred_parameters_have_no_strength():
    """Kills: a strength that no request gets, and probes of an idle server's health that find none and call it dead."""
    check_preferred(None)
    check_preferred({"temperature": 0, "custom_params": None})
    with pytest.raises(LaunchError, match="has custom_params, which no request would get: .*--proxy-alpha"):
        check_preferred({"custom_params": {"proxy_alpha": 0.8}})


class TestLimits:
    def test_flags_win_over_the_file_which_wins_over_defaults(self, tmp_path):
        file = tmp_path / "proxies.yaml"
        file.write_text(
            f"{{expert_path: E, amateur_path: A, limits: {{max_n: 2, max_stops: 3, image_folder: {tmp_path}}}}}"
        )
        limits = build_limits({"max_n": 5, "max_stops": None}, str(file))
        assert (limits.max_n, limits.max_stops, limits.image_folder) == (5, 3, tmp_path)
        assert limits.max_logprobs == Limits().max_logprobs
        assert build_config(NO_FLAGS, str(file)).expert_path == "E"

    def test_a_plain_server_has_them_too(self, tmp_path):
        file = tmp_path / "limits.yaml"
        file.write_text("limits: {max_n: 2}")
        assert build_config(NO_FLAGS, str(file)) is None
        assert build_limits({}, str(file)).max_n == 2

    @pytest.mark.parametrize(
        ("name", "value"),
        [("max_n", 0), ("max_n", "many"), ("image_url_timeout_s", 0), ("image_url_timeout_s", float("nan")),
         ("image_folder", "/no/such/folder")],
    )  # fmt: skip
    def test_a_wrong_one_is_refused_by_its_flag(self, name, value):
        with pytest.raises(LaunchError, match=f"--proxy-{name.replace('_', '-')}"):
            build_limits({name: value}, None)

    def test_one_that_is_not_known_is_refused_where_it_was_written(self, tmp_path):
        file = tmp_path / "limits.yaml"
        file.write_text("limits: {max_m: 2}")
        with pytest.raises(LaunchError, match="limits in --proxy-config has 'max_m', .* max_n, "):
            build_limits({}, str(file))


def test_a_law_and_cuts_are_the_servers(tmp_path):
    """From flags or the file, for requests that name neither a strength nor a law."""
    law = {"kind": "schedule", "points": [[0, 1.0], [8, 0.25]]}
    file = tmp_path / "proxies.yaml"
    file.write_text(json.dumps({**PATHS, "law": law, "clip": 4, "plausible": 0.25}))
    for config in (
        build_config({**NO_FLAGS, **PATHS, "law": law, "clip": 4.0, "plausible": 0.25}, None),
        build_config(NO_FLAGS, str(file)),
    ):
        assert config.guidance.as_params() == {
            "proxy_alpha": None, "proxy_amateur_alpha": None, "proxy_law": [law], "proxy_clip": 4,
            "proxy_plausible": 0.25,
        }  # fmt: skip
        assert config.describe()["law"] == [law] and config.describe()["plausible"] == 0.25
    constant = read_guidance({"proxy_alpha": 0.8}, config.defaults)
    assert constant == Guidance.of(0.8, clip=4, plausible=0.25), "a strength that is named is no schedule's"
    assert read_guidance({"proxy_law": []}, config.defaults).law is None
    with pytest.raises(LaunchError, match="--proxy-law.* not in order"):
        build_config({**NO_FLAGS, **PATHS, "law": law | {"points": [[8, 1.0], [0, 2.0]]}}, None)
    with pytest.raises(LaunchError, match="--proxy-clip"):
        build_config({**NO_FLAGS, **PATHS, "clip": 0.0}, None)
    with pytest.raises(LaunchError, match="--proxy-plausible"):
        build_config({**NO_FLAGS, **PATHS, "plausible": 1.5}, None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"\xff\xfe\x00binary", "can't be read"),
        (b"1: two", "has 1 for a name"),
        (b"limits: {2: 3}", "has 2 for a name"),
        (b"expert-path: E", "write it as 'expert_path'"),
        (b"alpha: 1\nexpert_path: E\nalpha: 2", "'alpha' stands there twice, again in line 3"),
        (b"experts: {math: M, math: N}", "'math' stands there twice"),
        (b"expert_path: E\namateur_path: A\nexpert: {dtype: bf8}", r"--proxy-expert.dtype: .*'bfloat16'.*got 'bf8'"),
        (b"expert_path: E\namateur_path: A\namateur: {load_format: npz}", "--proxy-amateur.load-format: .*'dummy'"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path, text, sentence):
    file = tmp_path / "proxies.yaml"
    file.write_bytes(text)
    with pytest.raises(LaunchError, match=sentence):
        build_config(NO_FLAGS, str(file))


@pytest.mark.parametrize(
    ("said", "is_named"),
    [
        ({"proxy_alpha": 0.5}, True),
        ({"proxy_law": {"kind": "schedule", "points": [[0, 1.0]]}}, True),
        ({"proxy_law": {"kind": "entropy", "above": 1.0}}, False),
        ({"proxy_law": []}, False),
        ({"proxy_clip": 2.0}, False),
        ({"proxy_plausible": 0.1}, False),
    ],
)
def test_where_a_strength_is_required_one_has_to_be_named(said, is_named):
    """Kills: a law that goes over a strength taken for one."""
    obj = SimpleNamespace(rid="a", text="Hi", input_ids=None, sampling_params={"custom_params": said})
    config = ProxyConfig(**PATHS, require_strength=True)
    if is_named:
        admit_request(obj, config, None, (), False)
        return
    with pytest.raises(RequestError, match="names no strength"):
        admit_request(obj, config, None, (), False)
