"""A process that dies or stands still, and a full disk: every client has an error or an answer in time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests

from servers import COMMON, Server, command, is_running, serving
from sgl_proxythinker.launch.stopped_processes import ends_for_a_stop, watch_for_stops
from sgl_proxythinker.programs.random_triple import make_triple

pytestmark = pytest.mark.xdist_group("ranks")

WATCHDOG_S = 20
ENDS_WITHIN_S = WATCHDOG_S + 15
FLAGS = (*COMMON, "--watchdog-timeout", str(WATCHDOG_S))


@pytest.fixture(scope="module")
def triple(tmp_path_factory):
    return make_triple(tmp_path_factory.mktemp("faults"))


def processes_of(server: Server) -> dict[str, psutil.Process]:
    """The server's processes by the titles that SGLang gives them; `main` is the HTTP server."""
    main = psutil.Process(server.process.pid)
    found = {"main": main}
    for process in main.children(recursive=True):
        title = process.cmdline()[0] if process.cmdline() else ""
        if title.startswith("sglang::"):
            found[title.removeprefix("sglang::").strip()] = process
    return found


class Load:
    """Clients that have been answered in part when a fault comes, and one that comes after it."""

    def __init__(self, server: Server):
        self._server = server
        self._pool = ThreadPoolExecutor(8)
        self._started = threading.Semaphore(0)
        self._clients = [
            self._pool.submit(self._ask, alpha, stream) for alpha in (0.0, 0.5) for stream in (True, False)
        ]
        for _ in range(2):  # the streams
            assert self._started.acquire(timeout=120)

    def _ask(self, alpha: float, stream: bool) -> tuple[bool, float]:
        """Whether the whole answer came, and when it was known."""
        params = {"temperature": 0, "max_new_tokens": 900, "ignore_eos": True, "custom_params": {"proxy_alpha": alpha}}
        whole = False
        with contextlib.suppress(requests.RequestException):
            body = {"text": "Long", "stream": stream, "sampling_params": params}
            response = requests.post(self._server.url + "/generate", json=body, stream=True, timeout=600)
            lines = []
            for line in response.iter_lines():
                if stream and not lines:
                    self._started.release()
                lines.append(line)
            whole = response.ok and (b"data: [DONE]" in lines or not stream)
        return whole, time.monotonic()

    def after(self, fault: float) -> list[tuple[bool, float]]:
        """What each client had, and how many seconds after the fault."""
        self._clients.append(self._pool.submit(self._ask, 0.5, False))
        return [(whole, at - fault) for whole, at in (client.result() for client in self._clients)]


def assert_ends_with_errors(server: Server, load: Load, fault: float, whole: dict[str, psutil.Process]) -> None:
    for answered, seconds in load.after(fault):
        assert not answered and seconds < ENDS_WITHIN_S
    assert server.process.wait(ENDS_WITHIN_S) != 0
    deadline = time.monotonic() + ENDS_WITHIN_S
    while left := [process for process in whole.values() if is_running(process)]:
        assert time.monotonic() < deadline, f"these processes of the server are still there: {left}"
        time.sleep(0.2)


def test_a_killed_detokenizer_ends_the_server(triple, tmp_path):
    with serving(command(triple.base, (triple.expert, triple.amateur), *FLAGS), tmp_path / "log") as server:
        whole, load = processes_of(server), Load(server)
        whole["detokenizer"].kill()
        assert_ends_with_errors(server, load, time.monotonic(), whole)
        assert "detokenizer ended with exit code -9" in server.log_text()


def test_a_killed_main_process_leaves_nothing(triple, tmp_path):
    with serving(command(triple.base, (triple.expert, triple.amateur), *FLAGS), tmp_path / "log") as server:
        whole, load = processes_of(server), Load(server)
        whole["main"].kill()
        assert_ends_with_errors(server, load, time.monotonic(), whole)


def test_a_stopped_rank_ends_the_server(triple, tmp_path):
    flags = (*FLAGS, "--tp-size", "2", "--proxy-placement", "split")
    with serving(command(triple.base, (triple.expert, triple.amateur), *flags), tmp_path / "log") as server:
        whole, load = processes_of(server), Load(server)
        whole["scheduler_TP1"].send_signal(signal.SIGSTOP)
        assert_ends_with_errors(server, load, time.monotonic(), whole)
        said = "(rank 1, which runs the base and the amateur) (pid"
        assert said in server.log_text() and f"was stopped by a signal {WATCHDOG_S} s ago" in server.log_text()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount: {mounted.stderr.decode()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_of_the_log_changes_no_answer_and_a_stopped_detokenizer_ends_the_server(triple, small_disk):
    log = small_disk / "log"
    with serving(command(triple.base, (triple.expert, triple.amateur), *FLAGS), log) as server:
        bodies = [
            {"text": "Hi", "sampling_params": {"temperature": 0, "custom_params": {"proxy_alpha": alpha}, **grammar}}
            for alpha in (0.0, 0.5)
            for grammar in ({}, {"regex": "a+b"}, {"ebnf": "root ::= root"})
        ]

        def ask():
            answers = [server.post("/generate", body) for body in bodies]
            return [(answer.status_code, answer.json().get("output_ids")) for answer in answers]

        wanted = ask()
        with contextlib.suppress(OSError), (small_disk / "rest").open("wb", buffering=0) as rest:
            while True:
                rest.write(b"x" * 4096)
        with contextlib.suppress(OSError), (small_disk / "rest").open("ab", buffering=0) as rest:
            while True:
                rest.write(b"x")
        for _ in range(3):
            assert ask() == wanted
        assert server.get("/health_generate").status_code == 200
        (small_disk / "rest").unlink()
        # With room for its last sentences again: another fault.
        whole, load = processes_of(server), Load(server)
        whole["detokenizer"].send_signal(signal.SIGSTOP)
        assert_ends_with_errors(server, load, time.monotonic(), whole)
        assert "detokenizer (pid" in server.log_text() and "was stopped by a signal" in server.log_text()


# The watchdog by itself


@pytest.fixture
def watchdog(sglang, monkeypatch):
    import multiprocessing

    from sglang.srt.utils.watchdog import SubprocessWatchdog

    # Forked off a test process with threads, it may end before it sleeps.
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    process.start()
    asked, kill = [], os.kill

    def kill_others(pid, number):
        if pid == os.getpid():
            asked.append((pid, number))
        else:
            kill(pid, number)

    # It is the one `os.kill` of this process, which psutil suspends with.
    monkeypatch.setattr("sgl_proxythinker.launch.stopped_processes.os.kill", kill_others)
    yield SubprocessWatchdog([process], ["detokenizer"]), process, asked
    monkeypatch.undo()
    process.kill()
    process.join()


def wait_for(process, status):
    deadline = time.monotonic() + 60
    while (found := psutil.Process(process.pid).status()) != status:
        assert found != psutil.STATUS_ZOMBIE and time.monotonic() < deadline, f"{found} and not {status}"
        time.sleep(0.01)


def test_a_short_stop_ends_nothing(watchdog):
    watchdog, process, asked = watchdog
    watch_for_stops(watchdog, timeout_s=3)
    signals = psutil.Process(process.pid)
    for _ in range(2):
        signals.suspend()
        wait_for(process, psutil.STATUS_STOPPED)
        assert [ends_for_a_stop(watchdog) for _ in range(3)] == [False] * 3
        signals.resume()
        wait_for(process, psutil.STATUS_SLEEPING)
        assert not ends_for_a_stop(watchdog)
    assert not asked and process.is_alive()


def test_a_long_stop_ends_the_server(watchdog, caplog):
    watchdog, process, asked = watchdog
    watch_for_stops(watchdog, timeout_s=3)
    psutil.Process(process.pid).suspend()
    wait_for(process, psutil.STATUS_STOPPED)
    assert [ends_for_a_stop(watchdog) for _ in range(4)] == [False, False, False, True]
    assert asked == [(os.getpid(), signal.SIGQUIT)] and process.exitcode == -signal.SIGKILL
    assert "detokenizer (pid" in caplog.text


def test_a_watchdog_that_isnt_ours_looks_for_no_stops(watchdog):
    watchdog, process, asked = watchdog
    psutil.Process(process.pid).suspend()
    wait_for(process, psutil.STATUS_STOPPED)
    assert not ends_for_a_stop(watchdog)
