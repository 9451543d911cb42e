"""The schedulers of this host: started once all nodes agree, believed once they have proven to be ours."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.launch.dead_ranks import name_roles, tell_of_dead_ranks
from sgl_proxythinker.launch.stopped_processes import watch_for_stops
from sgl_proxythinker.nodes.agreement import NodesDiffer, agree
from sgl_proxythinker.nodes.meeting import Meeting
from sgl_proxythinker.nodes.statement import statement
from sgl_proxythinker.nodes.watch import Watch
from sgl_proxythinker.server import proxy_config, proxy_placement
from sgl_proxythinker.version import __version__

logger = logging.getLogger(__name__)


def launch_schedulers(launch: Callable[[], tuple[Any, Any]], server_args: Any) -> tuple[Any, Any]:
    """SGLang's launch of the schedulers of this host.

    Args:
        launch: SGLang's own; returns its `SchedulerInitResult` and the processes.
        server_args: SGLang's, of a server that is ours.

    Returns:
        What `launch` does. Its `wait_for_ready` proves the schedulers, those of all nodes; its `proxy_nodes` is the
        watch over the other nodes, None on one host.

    Raises:
        LaunchError: the nodes of the server would not serve the same, here; a scheduler does not run the worker that
            was asked for, from `wait_for_ready`.
    """
    node = _Node(server_args) if server_args.nnodes > 1 and proxy_config(server_args) is not None else None
    result, processes = launch()
    wait_for_ready, infos = result.wait_for_ready, result.scheduler_infos

    def wait_and_prove() -> None:
        wait_for_ready()
        prove_schedulers(server_args, infos)

    result.wait_for_ready = wait_and_prove
    result.proxy_nodes = None
    if node is not None:
        node.take(result, processes)
    return result, processes


def prove_schedulers(server_args: Any, scheduler_infos: Sequence[dict[str, Any]]) -> None:
    """Compare what each scheduler of this host says of its worker with what was asked for.

    Raises:
        LaunchError: a scheduler does not run the worker that was asked for.
    """
    config = proxy_config(server_args)
    placement: Any = proxy_placement(server_args)  # there is one if there are proxies
    first = 0 if placement is None else placement.ranks_of_node(server_args.node_rank)[0]
    for rank, info in enumerate(scheduler_infos, first):
        expected = None if config is None else config.describe_rank(placement.roles_on(rank))
        if "proxy" not in info or info["proxy"] != expected:
            raise LaunchError(
                f"the scheduler of rank {rank} reports proxy={info.get('proxy', 'nothing')!r} where {expected!r} was "
                "asked for: it would serve the base model under our name. Reinstall sgl-proxythinker and the SGLang "
                "version it names, in the environment of the server."
            )
    scheduler_infos[0]["proxythinker_version"] = __version__
    if config is not None:
        # What /server_info shows: every model was found on the ranks that are to run it.
        scheduler_infos[0]["proxy"] = config.describe()
        scheduler_infos[0]["proxy_ranks"] = placement.describe()


class _Node:
    """This host among those of its server, from the agreement of all nodes on.

    Raises:
        LaunchError: there is none.
    """

    def __init__(self, server_args: Any):
        self._args = server_args
        self.meeting = Meeting.of(server_args)
        self.watch = Watch(self.meeting, server_args.watchdog_timeout)
        # What ends this process with an exception or in peace; nothing of ours runs where it is killed.
        self._why_it_ended = "its main process has ended"
        self.meeting.come()
        self._end_in_peace_when_told()
        try:
            agree(self.meeting, statement(server_args))
        except NodesDiffer:  # each node has found it
            raise
        except BaseException as error:
            self.meeting.leave_word(f"its start failed: {error}")
            raise
        self.watch.start()
        atexit.register(self._say_why)

    def take(self, result: Any, processes: Any) -> None:
        """From here on the schedulers of this host and the other nodes end together."""
        from sgl_proxythinker.upstream.watchdog import SubprocessWatchdog

        result.proxy_nodes = self.watch
        prove, join = result.wait_for_ready, result.block_until_scheduler_exits
        placement: Any = proxy_placement(self._args)
        ranks = placement.ranks_of_node(self._args.node_rank)
        watchdog = SubprocessWatchdog(list(processes), [f"scheduler_{rank}" for rank in ranks])
        watchdog.proxy_nodes = self.watch
        name_roles(watchdog, placement, self._args.node_rank)
        self._tell_when_a_process_fails(watchdog)

        def prove_all() -> None:
            try:
                prove()
                self.meeting.tell("proven", True)
                self.meeting.of_all("proven")
            except BaseException as error:
                self._why_it_ended = f"its start failed: {error}"
                raise
            if self._args.node_rank > 0:
                self._serve(watchdog)

        def join_and_end() -> None:
            join()
            has_failed = any(process.exitcode for process in processes)
            if has_failed:  # seen here before the watchdog looked
                tell_of_dead_ranks(watchdog)
            sys.exit(int(has_failed))

        result.wait_for_ready = prove_all
        result.block_until_scheduler_exits = join_and_end

    def _serve(self, watchdog: Any) -> None:
        """Of a node without the HTTP server, whose main process is to wait for its schedulers."""
        watch_for_stops(watchdog, self._args.watchdog_timeout)
        watchdog.start()
        placement: Any = proxy_placement(self._args)
        ranks = placement.ranks_of_node(self._args.node_rank)
        logger.info(
            "proxythinker: node %d of %d serves: %s. Requests go to %s.", self._args.node_rank, self._args.nnodes,
            "; ".join(map(placement.describe_rank, ranks)), self.meeting.name(0),
        )  # fmt: skip

    def _tell_when_a_process_fails(self, watchdog: Any) -> None:
        """A child that has failed asks for the end by a signal. Once it serves, node 0 has a handler of its own."""
        if threading.current_thread() is not threading.main_thread():
            return
        stock: Any = signal.getsignal(signal.SIGQUIT)

        def tell_and_end(number: int, frame: Any) -> None:
            # Ranks that fail together ask one after the other; the first one's word is still on its way.
            signal.signal(signal.SIGQUIT, signal.SIG_IGN)
            try:
                tell_of_dead_ranks(watchdog)
            finally:
                stock(number, frame)

        signal.signal(signal.SIGQUIT, tell_and_end)

    def _end_in_peace_when_told(self) -> None:
        """By SIGTERM, which ends a process without a word. Once it serves, node 0 has a handler of its own."""
        is_main_thread = threading.current_thread() is threading.main_thread()
        if is_main_thread and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:  # a program's own stays
            signal.signal(signal.SIGTERM, self._end_in_peace)

    def _end_in_peace(self, *_: Any) -> None:
        self._why_it_ended = "it was told to (SIGTERM)"
        self._say_why()  # before the ranks die of it
        for process in multiprocessing.active_children():
            process.kill()  # they are waited for when this process ends, and may wait for other nodes
        sys.exit(128 + signal.SIGTERM)

    def _say_why(self) -> None:
        if not self.watch.why_others_ended:
            self.meeting.leave_word(self._why_it_ended)
