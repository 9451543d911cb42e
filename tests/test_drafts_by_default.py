"""A server that was told nothing of drafts has them where they pay, and none where they can't be; nobody is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from test_oracle import (  # noqa: F401
    expected,
    test_one_request_alone_gives_the_same_tokens_as_in_a_crowd,
)

from servers import COMMON, ENGINE_DEVICE, clean_environment, command, launch_and_wait, serving
from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.server import proxy_config

pytestmark = pytest.mark.xdist_group("drafts_by_default")

WITHOUT = "proxythinker: without drafts, because "
GIVES_WAY = {
    "stream_interval": ("--stream-interval", "4"),
    "enable_mixed_chunk": ("--enable-mixed-chunk",),
    "kv_cache_dtype": ("--kv-cache-dtype", "fp8_e5m2"),
    "prefill_attention_backend": ("--prefill-attention-backend", "torch_native"),
}


def started(triple, *flags):
    return command(triple.base, (triple.expert, triple.amateur), *COMMON, *flags, drafts_by_default=True)


@pytest.fixture(scope="module")
def guided(triple, tmp_path_factory):
    """In the place of the main server, for the law of another file."""
    with serving(started(triple), tmp_path_factory.mktemp("default") / "log") as server:
        yield server


def test_it_writes_ahead(guided):
    assert guided.get("/server_info").json()["proxy"]["speculate"] == "auto"
    meta = guided.generate(text="Hi", sampling_params={"max_new_tokens": 12, "ignore_eos": True})["meta_info"]
    assert 0 < meta["spec_verify_ct"] <= 12
    assert WITHOUT not in guided.log_text()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.rare] * (name != "kv_cache_dtype")) for name in GIVES_WAY]
)
def test_it_gives_way_to_what_drafts_do_not_go_with(triple, reference, tmp_path, name):
    """Kills: a launch that was served yesterday and is refused, and drafts that are left out without a word."""
    with serving(started(triple, *GIVES_WAY[name]), tmp_path / "log") as server:
        assert server.get("/server_info").json()["proxy"]["speculate"] == "off"
        body = {"text": "Hi", "stream": True, "sampling_params": {"max_new_tokens": 8, "stream_interval": 3}}
        assert server.post("/generate", body).ok
        assert "spec_verify_ct" not in server.generate(text="Hi", sampling_params={"max_new_tokens": 4})["meta_info"]
        [line] = [line for line in server.log_text().splitlines() if WITHOUT in line]
    assert GIVES_WAY[name][0] in line and line.endswith("; --proxy-speculate off says so itself")


def test_it_gives_way_where_its_rows_alone_do_not_fit(triple, sglang, monkeypatch, caplog):
    """Kills: a plan that nobody looks at before weights are read, and a wish that gives way to it.

    On a GPU, as far as the arguments go: of 24 GiB, with graphs so large that rows of drafts would take 29 GiB.
    """
    from sglang.srt.server_args import ServerArgs

    from sgl_proxythinker.launch import server_args as launch
    from sgl_proxythinker.plugin import provide_hooks

    def resolve():
        resolved = ServerArgs(**given)
        resolved.cuda_graph_config.decode.backend, resolved.cuda_graph_config.decode.max_bs = "full", 1_000_000
        return resolved

    provide_hooks()
    monkeypatch.setattr(launch, "gpu_bytes", lambda given: 24 << 30)
    paths = {"expert_path": str(triple.expert), "amateur_path": str(triple.amateur)}
    for config, wanted in ((ProxyConfig(**paths), "off"), (ProxyConfig(**paths, speculate="auto"), "auto")):
        given = {"model_path": str(triple.base), "max_total_tokens": 4096, **ENGINE_DEVICE}
        with caplog.at_level("INFO"):
            served = launch.finish_server_args(config, Limits(), given, resolve)
        assert proxy_config(served).describe()["speculate"] == wanted
        assert (served.speculative_algorithm is None) is (wanted == "off")
        told = [record.getMessage() for record in caplog.records if WITHOUT in record.getMessage()]
        caplog.clear()
        assert len(told) == (wanted == "off") and all("because their rows take" in line for line in told)


def test_a_file_that_says_nothing_of_drafts_is_no_wish_and_one_that_does_is(triple, tmp_path):
    file = tmp_path / "proxies.yaml"
    settings = {"expert_path": str(triple.expert), "amateur_path": str(triple.amateur)}
    arguments = command(triple.base, None, *COMMON, *GIVES_WAY["stream_interval"], "--proxy-config", str(file))
    file.write_text(yaml.safe_dump({**settings, "speculate": "auto"}))
    code, output = launch_and_wait(arguments)
    assert code != 0 and "--stream-interval 4 doesn't go with --proxy-speculate" in output, output[-2000:]
    file.write_text(yaml.safe_dump(settings))
    with serving(arguments, tmp_path / "log") as server:
        assert server.get("/server_info").json()["proxy"]["speculate"] == "off"
        assert WITHOUT in server.log_text()


def test_an_engine_that_asks_for_drafts_is_refused_where_they_can_not_be(triple, sglang):
    from sgl_proxythinker import Engine

    proxy = ProxyConfig(expert_path=str(triple.expert), amateur_path=str(triple.amateur), speculate="auto")
    with pytest.raises(LaunchError, match="--stream-interval 4 doesn't go with --proxy-speculate"):
        Engine(str(triple.base), proxy, stream_interval=4, max_total_tokens=4096, **ENGINE_DEVICE)


ENGINE = """
import sys
from sgl_proxythinker import Engine, ProxyConfig

if __name__ == "__main__":
    base, expert, amateur = sys.argv[1:]
    engine = Engine(base, ProxyConfig(expert_path=expert, amateur_path=amateur), {arguments})
    answer = engine.generate("Hi", {{"max_new_tokens": 4, "ignore_eos": True}})
    print("told", engine.get_server_info()["proxy"]["speculate"], "spec_verify_ct" in answer["meta_info"], flush=True)
    engine.shutdown()
"""


@pytest.mark.parametrize(
    ("more", "told"),
    [({}, "auto True"), pytest.param({"stream_interval": 4}, "off False", marks=pytest.mark.rare)],
    ids=str,
)
def test_an_engine_has_the_same_default(triple, tmp_path, more, told):
    arguments = {**ENGINE_DEVICE, "max_total_tokens": 4096, "max_running_requests": 8, **more}
    script = tmp_path / "script.py"
    script.write_text(ENGINE.format(arguments=", ".join(f"{name}={value!r}" for name, value in arguments.items())))
    command_line = [sys.executable, str(script), str(triple.base), str(triple.expert), str(triple.amateur)]
    done = subprocess.run(command_line, capture_output=True, text=True, timeout=300, env=clean_environment())
    assert f"told {told}" in done.stdout.splitlines(), (done.stdout + done.stderr)[-3000:]
