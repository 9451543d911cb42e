"""What `python -m benchmarks.paper` makes of its flags, before it asks anybody."""

from __future__ import annotations

import socket
import threading

import pytest

from sgl_proxythinker.evaluation import server
from sgl_proxythinker.evaluation.command_line import main, parse_arguments, plan_of
from sgl_proxythinker.evaluation.errors import EvaluationError
from sgl_proxythinker.evaluation.sampling import Sampling
from sgl_proxythinker.evaluation.settings import guidance_of

URL = ("--url", "http://127.0.0.1:9", "--out", "out")
PROXY = {"experts": {"charts": {}}, "alpha": 0.5, "law": None, "clip": None, "plausible": None}


def planned(*flags):
    return plan_of(parse_arguments([*URL, *flags]))


def settings_of(*flags):
    return {name: setting.custom_params for name, setting in planned(*flags).settings.items()}


def test_strengths_are_settings_of_one_server():
    assert settings_of("--alphas", "0,0.5", "--without-amateur") == {
        "alpha-0": {"proxy_alpha": 0.0},
        "alpha-0.5": {"proxy_alpha": 0.5},
        "no-amateur-0.5": {"proxy_alpha": 0.5, "proxy_amateur_alpha": 0.0},
    }
    assert list(settings_of()) == ["alpha-0", "alpha-0.25", "alpha-0.5", "alpha-0.75", "alpha-1"]
    assert settings_of("--plain", "expert") == {"expert": None}


def test_laws_and_experts_are_named_in_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("law: {proxy_alpha: 1, proxy_law: {kind: entropy, above: 0.3}}\n")
    flags = ("--settings", str(tmp_path / "mine.yaml"))
    assert list(settings_of(*flags)) == ["law"] and list(settings_of(*flags, "--alphas", "0")) == ["alpha-0", "law"]
    (setting,) = planned(*flags).settings.values()
    told = guidance_of(setting, PROXY)
    assert told["proxy_alpha"] == 1.0 and told["proxy_law"]


def test_a_setting_says_its_strength_and_not_the_server():
    """Kills: the server's default strength in place of a setting's own."""
    (base,) = planned("--alphas", "0").settings.values()
    assert guidance_of(base, PROXY) == {"proxy_alpha": 0.0, "proxy_amateur_alpha": 0.0}
    (plain,) = planned("--plain", "guided").settings.values()
    assert guidance_of(plain, PROXY | {"clip": 2.0}) == {
        "proxy_alpha": 0.5, "proxy_amateur_alpha": 0.5, "proxy_clip": 2.0
    }  # fmt: skip


def test_one_answer_is_greedy_and_several_are_drawn():
    assert planned().sampling == Sampling(repeats=1, temperature=0, top_p=0.95, seed=0)
    several = planned("--repeats", "4", "--seed", "7").sampling
    assert several.temperature == 1 and [several.seed_of(repeat) for repeat in (1, 2)] == [7, 8]
    assert planned().sampling.seed_of(1) is None


@pytest.mark.parametrize(
    "text, said",
    [
        ("mine: {proxy_alpha: 99}", "setting mine"),
        ("mine: {proxy_alpa: 1}", "proxy_alpa"),
        ("alpha-0.5: {proxy_alpha: 0.7}", "two settings are called alpha-0.5"),
        ("- 1", "settings can't be read"),
        ("a: [", "settings can't be read"),
        ("", "settings can't be read"),
    ],
)
def test_a_settings_file_that_nobody_can_ask_is_refused(text, said, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(EvaluationError, match=said):
        planned("--alphas", "0.5", "--settings", str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    "flags, said",
    [
        (("--preset", "nobody"), "no preset nobody"),
        (("--presets", "missing.yaml"), "presets can't be read"),
        (("--settings", "missing.yaml"), "settings can't be read"),
        (("--data", "mathvistas=x"), "mathvistas=x is not NAME=VALUE"),
        (("--benchmarks", "mathvista", "--revision", "mathverse=x"), "mathverse=x is not NAME=VALUE"),
        (("--beside", "missing"), "--beside missing: it is not the folder of a run"),
        (("--report", "--beside", "missing"), "--beside missing: it is not the folder of a run"),
    ],
)
def test_a_flag_that_nothing_can_come_of_is_refused(flags, said, capsys):
    assert main([*URL, *flags]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, said",
    [
        (("--benchmarks", "mathvistas"), "no benchmark mathvistas"),
        (("--repeats", "4", "--temperature", "0"), "several greedy answers"),
        (("--limit", "0"), "not 1 or more"),
        (("--alphas", "a"), "--alphas"),
        (("--temperature", "-1"), "--temperature: -1 is not 0 or more"),
        (("--temperature", "nan"), "--temperature: nan is not 0 or more"),
        (("--temperature", "inf"), "--temperature: inf is not 0 or more"),
        (("--top-p", "0"), "--top-p: 0 is not above 0 and at most 1"),
        (("--top-p", "2"), "--top-p: 2 is not above 0 and at most 1"),
    ],
)
def test_a_flag_that_can_not_be_is_refused(flags, said, capsys):
    with pytest.raises(SystemExit) as refused:
        main([*URL, *flags])
    assert refused.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "replies",
    [(None, "200 OK"), ("504 Gateway Timeout", "200 OK"), ("401 Unauthorized",)],
    ids=["slow once", "slow behind a router", "there, and no wish of ours"],
)
def test_a_server_that_is_slow_once_is_not_gone(replies, monkeypatch):
    monkeypatch.setattr(server, "_ALIVE_WITHIN_S", 2.0)
    looked_at = []

    def answer():
        for reply in replies:
            with listening.accept()[0] as client:
                looked_at.append(client.recv(1000))
                if reply is None:
                    client.recv(1)  # until nobody waits any more
                else:
                    client.sendall(f"HTTP/1.1 {reply}\r\nContent-Length: 2\r\n\r\n{{}}".encode())

    with socket.create_server(("127.0.0.1", 0)) as listening:
        asked = server.Server(f"http://127.0.0.1:{listening.getsockname()[1]}", "none")
        thread = threading.Thread(target=answer)
        thread.start()
        assert asked.is_alive()
        thread.join()
    assert len(looked_at) == len(replies) and not asked.is_alive(), "now nobody listens"


def test_an_environment_that_cant_be_made_says_how_to_make_one(capsys, monkeypatch, tmp_path):
    (tmp_path / "no folder").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no folder"))
    assert main([*URL]) == 1
    assert "python -m sgl_proxythinker.evaluation.environment FOLDER" in capsys.readouterr().err
