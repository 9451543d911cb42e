"""Where the nodes of a server meet: a key-value store at `--dist-init-addr`, held by the main process of node 0.

The ranks' process group finds it there, too, in place of a store of the first rank's: this one outlives a rank that
dies, so that others can read what happened.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, TypeVar

from torch.distributed import TCPStore

from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.nodes.flags import Address, read_address

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
# Nodes are started one after the other, by hand.
WAITS_S = 1_800
# A rank's process group takes the store that is there, in place of one of its own (torch's rendezvous).
ENVIRONMENT = {"TORCHELASTIC_USE_AGENT_STORE": "True"}
_OURS = "proxythinker/"
_FIRST_FAILURE = f"{_OURS}failed"
_WORKER = "worker"
# To leave word takes no longer: the server is about to end. More than the 5 s after which a resolver asks again: torch
# asks a name server who it connects to before it does (for its log), and an answer may be lost.
_WORD_S = 8.0
# To open the store, on this host.
_OPENS_WITHIN_S = 30.0
# Beyond a time limit that the store is to keep by itself, and does not where somebody listens and says nothing.
_GRACE_S = 2.0

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns, if it does so in time; a signal is handled meanwhile, which a call in C would put off.

    Raises:
        TimeoutError: it does not, and is left to itself, in a thread that keeps no process alive.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    try:
        threading.Thread(target=run, daemon=True, name="proxythinker-store").start()
    except RuntimeError:  # when the interpreter ends, Python 3.12 starts none
        return work()
    return done.result(timeout=seconds)


def find_the_store() -> None:
    """Let the process group that this process, a rank's, is about to join find the store of the nodes."""
    os.environ.update(ENVIRONMENT)


class Meeting:
    """One node's seat at the store.

    Args:
        address: of the store.
        node: this one.
        nodes: how many there are.
        waits_s: for others, before it is an error that they are not there.
    """

    def __init__(self, address: Address, node: int, nodes: int, waits_s: float = WAITS_S):
        self.address = address
        self.node = node
        self.nodes = nodes
        self.hosts: dict[int, str] = {}  # by node, once they have agreed
        self._waits_s = waits_s
        self._has_left_word = False
        self.store: TCPStore  # once it has come

    @classmethod
    def of(cls, server_args: Any) -> Meeting:
        """The seat of a node by its arguments, SGLang's."""
        waits_s = server_args.dist_timeout or WAITS_S
        return cls(read_address(server_args.dist_init_addr), server_args.node_rank, server_args.nnodes, waits_s)

    def come(self) -> None:
        """Take it: node 0 opens the store, the others look for it.

        Raises:
            LaunchError: the address is taken, or not this host's, or nobody listens there; the seat is another's.
        """
        does = "listens for the others" if self.node == 0 else "looks for node 0"
        logger.info("proxythinker: node %d of %d %s at %s", self.node, self.nodes, does, self._where)
        self.store = self.connect(_OPENS_WITHIN_S if self.node == 0 else self._waits_s, is_listening=self.node == 0)
        own = uuid.uuid4().hex
        if self.store.compare_set(self._key("seat", self.node), "", own).decode() != own:
            raise LaunchError(
                f"node {self.node} has come to {self._where} before: give each host a --node-rank of its own, and "
                "after a start that failed start all of them again."
            )

    @property
    def others(self) -> list[int]:
        return [node for node in range(self.nodes) if node != self.node]

    def name(self, node: int) -> str:
        """For a person."""
        return f"node {node} ({self.hosts[node]})" if node in self.hosts else f"node {node}"

    def connect(self, timeout_s: float, is_listening: bool = False) -> TCPStore:
        """A connection of its own: what waits in one does not keep another.

        Raises:
            LaunchError: it can't be made.
        """
        timeout = timedelta(seconds=timeout_s)
        try:
            return within(
                timeout_s + _GRACE_S,
                lambda: TCPStore(*self.address, is_master=is_listening, wait_for_workers=False, timeout=timeout),
            )
        except (RuntimeError, TimeoutError) as error:  # torch's DistError
            if is_listening:
                raise LaunchError(
                    f"node 0 can't listen at --dist-init-addr {self._where}: name an address of this host and a free "
                    f"port. ({_first_line(error)})"
                ) from None
            raise LaunchError(
                f"node 0 was not found at --dist-init-addr {self._where} within {timeout_s:g} s: start it, with the "
                f"same address, and let the hosts reach each other. ({_first_line(error)})"
            ) from None

    def tell(self, what: str, value: Any) -> None:
        """Leave something of this node, JSON, for the others."""
        self._leave(what, self.node, value)

    def told(self, what: str, node: int, store: TCPStore | None = None) -> Any | None:
        """What a node has left; None: nothing yet."""
        store, key = store or self.store, self._key(what, node)
        return json.loads(store.get(key)) if store.check([key]) else None

    def of_all(self, what: str, is_first: bool = False) -> dict[int, Any]:
        """What each node has left, once all have.

        Args:
            what: they have left.
            is_first: no rank may have joined before.

        Raises:
            LaunchError: the time is over, node 0 is gone, or, where it is the first, somebody has joined who is no node
                of this server.
        """
        return self._of_all("node", what, self.nodes, is_first)

    def announce_rank(self, rank: int, ranks: int) -> None:
        """Return once every rank of the server has said that it is about to join with a worker of ours.

        One that is plain would join without a word, and wait for others than ours do.

        Raises:
            LaunchError: as `of_all`.
        """
        self.store = self.connect(self._waits_s)
        self._leave(_WORKER, rank, True)
        try:
            self._of_all("rank", _WORKER, ranks, is_first=True)
        except LaunchError as error:
            self.leave_first_failure(str(error))
            raise

    def _of_all(self, kind: str, what: str, count: int, is_first: bool) -> dict[int, Any]:
        deadline, is_said = time.monotonic() + self._waits_s, False
        while True:
            try:
                # Before the others are read: ranks of ours join once all of them have been.
                left = max(0.0, deadline - time.monotonic()) + _GRACE_S
                has_strangers = is_first and within(left, self._has_strangers)
                found = within(left, lambda: self._told_by(what, count))
                missing = [each for each in range(count) if each not in found]
                if not missing:
                    return found
                words = within(left, self.words) if kind == "node" else {}
            except RuntimeError:
                raise LaunchError(f"{self.name(0)} has ended; its log says why.") from None
            except TimeoutError:
                raise LaunchError(f"{self.name(0)} does not answer any more: its main process stands still.") from None
            for node, word in words.items():
                raise LaunchError(f"{self.name(node)} has ended: {word}")
            named = f"{kind}{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))} of {count}"
            if has_strangers:
                raise LaunchError(
                    f"a process has joined --dist-init-addr {self._where} that is none of this server's, while {named} "
                    "had not said what it serves: a plain SGLang there would not be guided. Start every node with "
                    "--plugin proxythinker and the same flags, and with the packages that this one has."
                )
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"nothing was heard of {named} for {self._waits_s:g} s. Start every node with the same command and "
                    "its own --node-rank."
                )
            if not is_said and kind == "node":
                logger.info("proxythinker: waiting for %s", named)
                is_said = True
            time.sleep(LOOK_EVERY_S)

    def leave_word(self, word: str) -> None:
        """Tell the others why this node ends; as far as they can be told. Returns soon. The first word counts."""
        if self._has_left_word:
            return
        self._has_left_word = True
        try:
            within(2 * _WORD_S + _GRACE_S, lambda: self._leave_word(word))
        except (LaunchError, RuntimeError, TimeoutError):
            logger.info("proxythinker: the other nodes could not be told")

    def _leave_word(self, word: str) -> None:
        store = self.connect(_WORD_S)
        self._leave("word", self.node, word, store)
        deadline = time.monotonic() + _WORD_S
        # The store ends with node 0.
        while self.node == 0 and time.monotonic() < deadline and not self._is_heard(store):
            time.sleep(LOOK_EVERY_S / 5)

    def leave_first_failure(self, what: str) -> None:
        """Say which rank failed, unless another has said it of itself before: the others' failures follow from it."""
        try:
            within(_WORD_S + _GRACE_S, lambda: self.connect(_WORD_S).compare_set(_FIRST_FAILURE, "", what))
        except (LaunchError, RuntimeError, TimeoutError):
            logger.info("proxythinker: the other nodes could not be told")

    def first_failure(self) -> str | None:
        """The rank that was the first to say that it fails; None: none has, or it can't be known."""
        try:
            return within(_WORD_S + _GRACE_S, self._first_failure)
        except (LaunchError, RuntimeError, TimeoutError):
            return None

    def _first_failure(self) -> str | None:
        store = self.connect(_WORD_S)
        return store.get(_FIRST_FAILURE).decode(errors="replace") if store.check([_FIRST_FAILURE]) else None

    def words(self, store: TCPStore | None = None) -> dict[int, str]:
        """Why other nodes end, by node. Says that they were heard."""
        store = store or self.store
        words = {node: word for node in self.others if (word := self.told("word", node, store)) is not None}
        if words:
            store.set(self._key("heard", self.node), "true")
        return words

    def _is_heard(self, store: TCPStore) -> bool:
        """By all who have not ended themselves."""
        return all(
            store.check([self._key("heard", node)]) or store.check([self._key("word", node)]) for node in self.others
        )

    def _told_by(self, what: str, count: int) -> dict[int, Any]:
        told = {each: self.told(what, each) for each in range(count)}
        return {each: value for each, value in told.items() if value is not None}

    def _has_strangers(self) -> bool:
        """Whether there are keys of a process group, which nobody has agreed to yet."""
        return any(not key.startswith(_OURS) for key in self.store.list_keys())

    @property
    def _where(self) -> str:
        return f"{self.address.host}:{self.address.port}"

    def _leave(self, what: str, of: int, value: Any, store: TCPStore | None = None) -> None:
        (store or self.store).set(self._key(what, of), json.dumps(value))

    def _key(self, what: str, of: int) -> str:
        return f"{_OURS}{what}/{of}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
