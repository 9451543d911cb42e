"""Installed but not asked for, the plugin adds flags to the help text and nothing else."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from servers import clean_environment

pytestmark = pytest.mark.heavy

REPOSITORY = Path(__file__).parent.parent


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=clean_environment())
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_only_the_command_line_is_hooked():
    code = """
from sglang.srt.plugins import load_plugins
from sglang.srt.plugins.hook_registry import HookRegistry
load_plugins()
print(sorted(HookRegistry._patched))
import os, sys
print("SGLANG_USE_CPU_ENGINE" in os.environ, "sgl_proxythinker_cpu_ops" in sys.modules)
"""
    hooked, touched = run(code).strip().splitlines()[-2:]
    assert hooked == str([
        "sglang.srt.server_args.ServerArgs.add_cli_args", "sglang.srt.server_args.ServerArgs.from_cli_args",
    ])  # fmt: skip
    assert touched == "False False"


def test_arguments_without_the_plugin_are_sglangs_own():
    code = """
import argparse
from sglang.srt.server_args import ServerArgs, prepare_server_args
before = prepare_server_args(["--model-path", "dummy", "--port", "1234"])
from sglang.srt.plugins import load_plugins
load_plugins()
after = prepare_server_args(["--model-path", "dummy", "--port", "1234"])
print(vars(before) == vars(after), after.port)
"""
    assert run(code).strip().splitlines()[-1] == "True 1234"


def test_our_configuration_survives_what_sglang_does_to_its_arguments():
    """Pickled to every process, copied for the proxies, overridden after resolution."""
    code = """
import copy, pickle
from sglang.srt.server_args import ServerArgs
from sgl_proxythinker import ProxyConfig
from sgl_proxythinker.placement import Shape, place
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.server import is_ours, mark_as_ours, proxy_config, proxy_placement, request_limits
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT
arguments = ServerArgs(model_path="dummy")
assert not is_ours(arguments)
arguments._declarations_materialized = True
config = ProxyConfig(expert_path="E", amateur_path="A", alpha=2.0)
placement = place(2, dict.fromkeys((BASE, EXPERT, AMATEUR), Shape(4, 2, 8, 4, 8)))
mark_as_ours(arguments, config, placement, Limits(max_n=7))
for travelled in (pickle.loads(pickle.dumps(arguments)), copy.deepcopy(arguments)):
    assert is_ours(travelled) and proxy_config(travelled) == config and proxy_placement(travelled) == placement
    assert request_limits(travelled).max_n == 7
print("survived")
"""
    assert run(code).strip().endswith("survived")


@pytest.mark.parametrize(
    "flag",
    [
        "--plugin",
        "--proxy-expert-path",
        "--proxy-amateur-path",
        "--proxy-alpha",
        "--proxy-placement",
        "--proxy-tp-size",
        "--proxy-config",
        "--proxy-require-strength",
        "--proxy-max-n",
        "--proxy-image-folder",
    ],
)
def test_the_help_shows_our_flags_in_a_group(flag, help_text):
    group = help_text[help_text.index("\nproxythinker:") :]
    assert flag in group


@pytest.fixture(scope="module")
def help_text():
    return subprocess.run(
        [sys.executable, "-m", "sglang.launch_server", "--help"], capture_output=True, text=True, timeout=300
    ).stdout


def test_the_package_prints_nothing_and_has_no_machine_path():
    for file in [*REPOSITORY.glob("sgl_proxythinker/**/*.py"), *REPOSITORY.glob("patches/*.py")]:
        text = file.read_text()
        assert not re.search(r"\bprint\(", text), file
        assert not any(path in text for path in ("/" + "work/", "/" + "home/", "/" + "root/")), file
