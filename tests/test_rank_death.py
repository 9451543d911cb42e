"""A rank that is killed or fails ends the server, with a message that names the models it ran; nobody waits forever."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time

import psutil
import pytest
import requests

from roster import TRIPLE
from servers import COMMON, Server, command, is_running, nodes_of, sabotaged, serving, starting
from sgl_proxythinker.launch.dead_ranks import name_roles, tell_of_dead_ranks, tell_of_failed_rank
from sgl_proxythinker.placement import Shape, place
from sgl_proxythinker.programs.random_triple import make_triple

pytestmark = pytest.mark.xdist_group("ranks")

ENDS_WITHIN_S = 120
# SGLang waits a minute for the dumps of a GPU's memory before it ends.
NO_DUMPS = {"SGLANG_CUDA_COREDUMP_BEFORE_CRASH": "0", "SGLANG_PYSPY_DUMP_BEFORE_CRASH": "0"}
PLACEMENT = place(2, dict.fromkeys(TRIPLE, Shape(2, 2, 2, 2, 2)), "split")


@pytest.fixture(scope="module")
def triple(tmp_path_factory):
    return make_triple(tmp_path_factory.mktemp("death"))


def processes_of(server: Server) -> list[psutil.Process]:
    main = psutil.Process(server.process.pid)
    return [main, *main.children(recursive=True)]


def rank_of(processes: list[psutil.Process], rank: int) -> psutil.Process:
    """The scheduler of a rank, by the title that SGLang gives its process."""
    [found] = [
        process for process in processes if f"scheduler_TP{rank}" in " ".join([process.name(), *process.cmdline()])
    ]
    return found


def assert_ends(server: Server, whole: list[psutil.Process]) -> None:
    """With an error, and without leaving any of its processes behind."""
    assert server.process.wait(ENDS_WITHIN_S) != 0
    deadline = time.monotonic() + ENDS_WITHIN_S
    while (left := [process for process in whole if is_running(process)]) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left, f"these processes of the server are still there: {left}"


def assert_is_cut_off(stream: requests.Response) -> None:
    told = []
    with contextlib.suppress(requests.RequestException):
        for line in stream.iter_lines():
            told.append(line)
    assert b"data: [DONE]" not in told, "nobody is told that this was the whole answer"


def start_endless(server: Server) -> requests.Response:
    """A request that runs for minutes, and is decoding."""
    params = {"temperature": 0, "max_new_tokens": 3500, "ignore_eos": True, "custom_params": {"proxy_alpha": 1.0}}
    stream = server.post("/generate", {"text": "Long", "stream": True, "sampling_params": params}, stream=True)
    next(stream.iter_lines())
    return stream


@pytest.mark.parametrize(
    ("placement", "ranks", "killed", "models", "busy"),
    [
        ("split", 2, 1, "the base and the amateur", False),
        ("dedicated", 3, 1, "the expert", True),
    ],
    ids=["the amateur's in split, idle", "the expert's in dedicated, while a request runs"],
)
def test_a_killed_rank_ends_the_server_and_is_named(triple, tmp_path, placement, ranks, killed, models, busy):
    flags = (*COMMON, "--tp-size", str(ranks), "--proxy-placement", placement)
    arguments = command(triple.base, (triple.expert, triple.amateur), *flags)
    with serving(arguments, tmp_path / "log", NO_DUMPS) as server:
        whole = processes_of(server)
        stream = start_endless(server) if busy else None
        rank_of(whole, killed).kill()
        assert_ends(server, whole)
        if stream is not None:
            assert_is_cut_off(stream)
    assert f"rank {killed}, which runs {models})" in server.log_text()


# Of a server over two hosts, each with a rank: which process dies, and what the two logs say in the end.
THE_EXPERTS = "scheduler_0 (rank 0 on node 0, which runs the base and the expert) ended with exit code -9"
THE_AMATEURS = "scheduler_1 (rank 1 on node 1, which runs the base and the amateur) ended with exit code -9"
ENDS_OF_TWO_HOSTS = {
    "a rank of the second, while a request runs": (
        lambda nodes: rank_of(nodes[1], 1), (": node 1 (", f"has ended: {THE_AMATEURS}"), (THE_AMATEURS,)
    ),
    "a rank of the first": (
        lambda nodes: rank_of(nodes[0], 0), (THE_EXPERTS,), (": node 0 (", f"has ended: {THE_EXPERTS}")
    ),
    "the main process of the first": (lambda nodes: nodes[0][0], (), (": node 0 (", ") has ended")),
    "the main process of the second": (lambda nodes: nodes[1][0], ("scheduler failed (rank 0 on node 0,",), ()),
    "the main process of the second, by SIGTERM": (
        lambda nodes: nodes[1][0], (": node 1 (", "has ended: it was told to (SIGTERM)"), ()
    ),
}  # fmt: skip
ASKED = [
    pytest.param(name, marks=[] if name.startswith("a rank of the second") else pytest.mark.rare)
    for name in ENDS_OF_TWO_HOSTS
]


@pytest.mark.parametrize("end", ASKED)
def test_hosts_end_together_and_say_whose_process_died(triple, tmp_path, end):
    victim, first_says, second_says = ENDS_OF_TWO_HOSTS[end]
    flags = (*COMMON, "--tp-size", "2", "--nnodes", "2", "--proxy-placement", "split")
    arguments = command(triple.base, (triple.expert, triple.amateur), *flags)
    with serving(arguments, tmp_path / "log", NO_DUMPS) as server:
        [other] = server.other_nodes
        nodes = processes_of(server), processes_of(other)
        stream = start_endless(server) if "while a request" in end else None
        victim(nodes).send_signal(signal.SIGTERM if "SIGTERM" in end else signal.SIGKILL)
        for node, whole in zip((server, other), nodes, strict=True):
            assert_ends(node, whole)
        if stream is not None:
            assert_is_cut_off(stream)
    for node, words in ((server, first_says), (other, second_says)):
        log = node.log_text()
        assert not [word for word in words if word not in log], log[-6000:]


def test_a_host_that_is_told_to_end_while_it_waits_for_others_tells_them(triple, tmp_path):
    """The third of them never comes."""
    flags = (*COMMON, "--tp-size", "3", "--nnodes", "3", "--proxy-placement", "dedicated")
    nodes = nodes_of(command(triple.base, (triple.expert, triple.amateur), *flags))
    logs = [tmp_path / "first", tmp_path / "second"]
    with starting(nodes[0][0], logs[0]) as first, starting(nodes[1][0], logs[1]) as second:
        deadline = time.monotonic() + ENDS_WITHIN_S
        while not all("proxythinker: waiting for node" in log.read_text() for log in logs):
            assert first.poll() is None and second.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)
        os.kill(second.pid, signal.SIGTERM)
        assert second.wait(ENDS_WITHIN_S) == 128 + signal.SIGTERM
        assert first.wait(ENDS_WITHIN_S) == 1
    assert "node 1 has ended: it was told to (SIGTERM)" in logs[0].read_text()


@pytest.mark.rare
def test_a_host_that_stands_still_ends_the_other_one(triple, tmp_path):
    """Connections stay open, and no collective fails: its main process counts no more."""
    flags = (*COMMON, "--tp-size", "2", "--nnodes", "2", "--proxy-placement", "split", "--watchdog-timeout", "20")
    arguments = command(triple.base, (triple.expert, triple.amateur), *flags)
    with serving(arguments, tmp_path / "log", NO_DUMPS) as server:
        [other] = server.other_nodes
        whole, stopped = processes_of(server), processes_of(other)
        for process in stopped:
            process.suspend()
        assert_ends(server, whole)
        for process in stopped:
            process.resume()
        assert_ends(other, stopped)
    assert "nothing has been heard of node 1 (" in server.log_text()


# Where a step's results are taken: the first rank alone fails, and its peers are in the next step by then.
FAILS_ON_THE_FIRST_RANK = """
from sgl_proxythinker.patches import scheduler_process_batch_result as patch
around = patch.around
def fail(original, scheduler, batch, result):
    if scheduler.ps.tp_rank == 0 and any(req.rid.endswith(":fails") for req in batch.reqs):
        raise RuntimeError("of this test")
    return around(original, scheduler, batch, result)
patch.around = fail
"""


def test_an_exception_on_the_first_rank_alone_ends_the_server_and_names_the_rank(triple, tmp_path):
    flags = (*COMMON, "--tp-size", "2", "--proxy-placement", "split")
    arguments = sabotaged(
        tmp_path, FAILS_ON_THE_FIRST_RANK, command(triple.base, (triple.expert, triple.amateur), *flags)
    )
    with serving(arguments, tmp_path / "log", NO_DUMPS) as server:
        whole, stream = processes_of(server), start_endless(server)
        with contextlib.suppress(requests.RequestException):
            body = {"text": "Hi", "rid": "fails", "sampling_params": {"max_new_tokens": 4}}
            assert not server.post("/generate", body).ok
        assert_ends(server, whole)
        assert_is_cut_off(stream)
    log = server.log_text()
    named = log.index("the scheduler failed (rank 0, which runs the base and the expert)")
    assert ":fails" in log[named : log.index("RuntimeError: of this test", named)], "the request is named too"


ENDS_AS_TOLD = "import os; pipe.send('started'); os._exit(pipe.recv())"


@pytest.fixture
def watched(sglang):
    """SGLang's watchdog over two ranks and a third process, and what ends each with a code."""
    from sglang.srt.utils.watchdog import SubprocessWatchdog

    # Spawned, since this process has threads; what they run needs no module of the tests, whose imports take seconds.
    spawn = multiprocessing.get_context("spawn")
    pipes = [spawn.Pipe() for _ in range(3)]
    processes = [spawn.Process(target=exec, args=(ENDS_AS_TOLD, {"pipe": inner})) for _, inner in pipes]
    for process in processes:
        process.start()

    def end_with(index: int, code: int) -> None:
        pipes[index][0].send(code)
        processes[index].join()

    for pipe, _ in pipes:
        assert pipe.poll(120) and pipe.recv() == "started"
    yield SubprocessWatchdog(processes, ["scheduler_0", "scheduler_1", "detokenizer"]), end_with
    for process in processes:
        process.kill()
        process.join()


def told(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


DIED = "proxythinker: scheduler_1 (rank 1, which runs the base and the amateur) ended with exit code 3"


def test_a_rank_that_died_is_named(watched, caplog):
    watchdog, end_with = watched
    name_roles(watchdog, PLACEMENT)
    end_with(1, 3)
    tell_of_dead_ranks(watchdog)
    assert told(caplog) == [DIED]


def test_a_death_that_its_peers_saw_first_is_waited_for(watched, caplog, monkeypatch):
    """Connections of a killed process close before it can be seen to have ended; a peer may end well meanwhile."""
    monkeypatch.setattr("sgl_proxythinker.launch.dead_ranks.SEEN_WITHIN_S", 120.0)
    watchdog, end_with = watched
    name_roles(watchdog, PLACEMENT)
    teller = threading.Thread(target=tell_of_dead_ranks, args=(watchdog,))
    teller.start()
    end_with(0, 0)
    end_with(1, 3)
    teller.join()
    assert told(caplog) == [DIED]


def test_where_nobody_died_nobody_is_named(watched, caplog, monkeypatch):
    monkeypatch.setattr("sgl_proxythinker.launch.dead_ranks.SEEN_WITHIN_S", 0.0)
    watchdog, _ = watched
    name_roles(watchdog, PLACEMENT)
    tell_of_dead_ranks(watchdog)
    assert not caplog.records


@pytest.mark.parametrize(
    ("placement", "ran"), [(PLACEMENT, "rank 1, which runs the base and the amateur"), (None, "rank 1")]
)
def test_a_rank_that_failed_is_named(caplog, placement, ran):
    tell_of_failed_rank(1, placement, None)
    assert told(caplog) == [f"proxythinker: the scheduler failed ({ran})"]


def test_a_plain_servers_watchdog_is_left_alone(watched):
    watchdog, _ = watched
    name_roles(watchdog, None)
    assert watchdog._names == ["scheduler_0", "scheduler_1", "detokenizer"]
