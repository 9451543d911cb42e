"""The nodes of a server end together: each looks after the others, and what ends one is told to all.

Each node's main process counts in the store, once a second, and reads what the others count. A node that ends leaves
word of why; one whose host loses its power or its network counts no more, and one that finds the store gone knows that
node 0 is. Connections between ranks break sooner, mostly, but not where the other side falls silent.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable

from torch.distributed import TCPStore

from sgl_proxythinker.nodes.meeting import Meeting

logger = logging.getLogger(__name__)

BEAT_S = 1.0


def end_this_node() -> None:
    """As a child of the main process does that has failed."""
    os.kill(os.getpid(), signal.SIGQUIT)


class Watch:
    """Looks after the other nodes, in threads of the main process.

    Args:
        meeting: they have met there.
        timeout_s: for how long a node may be silent, `--watchdog-timeout`.
        end: ends this node; from a thread.
    """

    def __init__(self, meeting: Meeting, timeout_s: float, end: Callable[[], None] = end_this_node):
        self.meeting = meeting
        self.timeout_s = timeout_s
        self._end = end
        self._silent_s = dict.fromkeys(meeting.others, 0.0)
        self._counted: dict[int, int] = {}
        self._is_over = threading.Event()
        self._is_ending = False
        self._told: list[str] = []  # why other nodes have ended
        self._lock = threading.Lock()

    def start(self) -> None:
        # What waits for a host that is gone waits for minutes, so nobody else uses its connection, and another thread
        # looks at the time.
        store = self.meeting.connect(self.timeout_s)
        for name, run in (("proxythinker-beats", lambda: self._count(store)), ("proxythinker-nodes", self._look)):
            threading.Thread(target=run, daemon=True, name=name).start()

    @property
    def why_others_ended(self) -> list[str]:
        return list(self._told)

    def expect_the_end(self) -> None:
        """This node ends already; why another did may still be heard, and is logged."""
        self._is_ending = True

    def _count(self, store: TCPStore) -> None:
        count = 0
        while not self._is_over.wait(BEAT_S):
            count += 1
            try:
                self.look_once(store, count)
            except RuntimeError:  # torch's DistError
                self._another_ended(f"{self.meeting.name(0)} has ended")
            except ValueError:
                self._another_ended("what lies at --dist-init-addr was not left by a node of this server")

    def look_once(self, store: TCPStore, count: int) -> None:
        """Count for the others, and read what they have left.

        Raises:
            RuntimeError: the store is gone.
        """
        store.set(f"proxythinker/count/{self.meeting.node}", str(count))
        for node in self.meeting.others:
            counted = self.meeting.told("count", node, store)
            if counted is not None and counted != self._counted.get(node):
                self._counted[node], self._silent_s[node] = counted, 0.0
        for node, word in self.meeting.words(store).items():
            self._another_ended(f"{self.meeting.name(node)} has ended: {word}")

    def _look(self) -> None:
        while not self._is_over.wait(BEAT_S):
            self.add_silence(BEAT_S)

    def add_silence(self, seconds: float) -> None:
        """Looks are counted, not a clock: where this process was suspended with the others, none was made."""
        for node in self.meeting.others:
            self._silent_s[node] += seconds
            if self._silent_s[node] > self.timeout_s:
                self._another_ended(
                    f"nothing has been heard of {self.meeting.name(node)} for {self.timeout_s:g} s "
                    "(--watchdog-timeout): its host, its network or its main process stands still"
                )

    def _another_ended(self, why: str) -> None:
        with self._lock:
            if self._is_over.is_set():
                return
            self._is_over.set()
            self._told.append(why)
        logger.error("proxythinker: %s, so this node ends", why)
        if not self._is_ending:
            self._end()
