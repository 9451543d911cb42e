"""A server that is forked from imports that were made (`warm_start`) is the server that a user starts."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

import servers
from cases import ask_all, mixed_cases, output_ids
from servers import COMMON, ON_GPU, command, sabotaged, serving
from warm_start import WarmProcess, can_start

pytestmark = pytest.mark.skipif(ON_GPU, reason="a CPU: an import of SGLang on a GPU opens it, and can't be forked")

# Which process applies which hooks.
TELLS_ITS_HOOKS = """
import multiprocessing
from sglang.srt.plugins.hook_registry import HookRegistry
apply = HookRegistry._apply_target
def tell(target, hooks):
    apply(target, hooks)
    # On a line of its own, whatever another process has left of one.
    sys.stderr.write(f"\\nHOOKED {multiprocessing.current_process().name} {target}\\n")
HookRegistry._apply_target = staticmethod(tell)
"""
# What two starts of one command line don't share: ports, seconds, and what else runs on this host.
OF_ONE_START = {"port", "nccl_port", "startup_time", "memory_usage"}


def lasting(said: Any) -> Any:
    """What `/server_info` says without what is of one start."""
    if isinstance(said, list):
        return [lasting(each) for each in said]
    if not isinstance(said, dict):
        return said
    return {name: lasting(value) for name, value in said.items() if name not in OF_ONE_START}


def told_by(server: servers.Server) -> dict:
    return {
        "hooks": sorted(line for line in server.log_text().splitlines() if line.startswith("HOOKED")),
        "server_info": lasting(server.get("/server_info").json()),
        "tokens": [output_ids(answer["choices"][0]) for answer in ask_all(server, mixed_cases())],
    }


@pytest.mark.xdist_group("closed")
def test_it_tells_what_a_cold_one_tells(triple, tmp_path):
    if servers.all_cold:
        pytest.skip("none is warm (--cold)")
    arguments = command(triple.base, (triple.expert, triple.amateur), *COMMON)
    arguments = sabotaged(tmp_path, TELLS_ITS_HOOKS, arguments)
    with serving(arguments, tmp_path / "warm.log") as server:
        assert isinstance(server.process, WarmProcess)
        warm = told_by(server)
    with serving(arguments, tmp_path / "cold.log", cold=True) as server:
        assert isinstance(server.process, subprocess.Popen)
        cold = told_by(server)
    assert len(warm["hooks"]) > 30
    for name, told in cold.items():
        assert warm[name] == told


@pytest.fixture
def started(tmp_path):
    """What a warm process that runs this code printed, and its exit code."""

    def run(program: str, environment: dict[str, str] | None = None) -> tuple[str, int]:
        script, log = tmp_path / "script.py", tmp_path / "log"
        script.write_text(textwrap.dedent(program))
        with log.open("wb") as output:
            process = WarmProcess(
                [sys.executable, str(script), "an argument"], stdout=output, stderr=subprocess.STDOUT,
                env=servers.clean_environment(environment), process_group=0,
            )  # fmt: skip
        code = process.wait(60)
        return log.read_text(), code

    return run


@pytest.mark.xdist_group("closed")
class TestFork:
    def test_it_runs_a_script_as_an_interpreter_does(self, started):
        code = """
            import os, sys
            print(__name__, sys.argv[1:], sys.path[0] == os.path.dirname(__file__), os.environ["OF_THIS_TEST"])
            sys.stderr.write(f"{os.getpgid(0) == os.getpid()}\\n")
            sys.exit(3)
        """
        text, code = started(code, {"OF_THIS_TEST": "set"})
        assert sorted(text.splitlines()) == ["True", "__main__ ['an argument'] True set"] and code == 3

    def test_an_exception_and_a_signal_end_it_with_their_codes(self, started):
        text, code = started("raise ValueError('of this test')")
        assert text.endswith("ValueError: of this test\n") and code == 1
        assert started("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)") == ("", -9)

    def test_an_engine_that_is_shut_down_in_the_process_of_the_tests_ends_none(self, started):
        """It ends all children of its process."""
        code = "import os, psutil\nprint(*(process.pid for process in psutil.Process().parents()))"
        above = started(code)[0].split()
        assert above and str(os.getpid()) not in above

    def test_what_is_spawned_has_its_environment_and_not_its_state(self, started):
        """It is a child of the process that spawned it, which learns how it ended."""
        code = """
            import multiprocessing, os, sys

            state, of_main = [], os.getpid()

            def child(pipe, main):
                name = sys.modules["__main__"].__name__
                pipe.send((state, os.getppid() == main, os.environ["SET"], sys.argv[1:], name))
                sys.exit(5)

            if __name__ == "__main__":
                import sgl_proxythinker

                state.append("of the main process")
                sgl_proxythinker.state = state
                os.environ["SET"] = "late"
                spawn = multiprocessing.get_context("spawn")
                ours, its = spawn.Pipe()
                process = spawn.Process(target=child, args=(its, os.getpid()))
                process.start()
                print(ours.recv())
                process.join()
                print(process.exitcode)
        """
        assert started(code) == ("([], True, 'late', ['an argument'], '__mp_main__')\n5\n", 0)


@pytest.mark.parametrize(
    ("changed", "extra", "is_warm"),
    [
        (lambda arguments: arguments, (), True),
        (lambda arguments: arguments, ("SGLANG_PYSPY_DUMP_BEFORE_CRASH",), True),
        (lambda arguments: arguments, ("TRITON_INTERPRET",), False),
        (lambda arguments: ["sglang", "serve", *arguments[3:]], (), False),
        (lambda arguments: [part for part in arguments if part not in ("--plugin", "proxythinker")], (), False),
    ],
)
def test_what_a_template_does_not_stand_for_starts_cold(triple, changed, extra, is_warm):
    arguments = command(triple.base, (triple.expert, triple.amateur))
    assert can_start(changed(arguments), extra) == is_warm
