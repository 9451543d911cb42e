"""The nodes of a server agree on what they serve before any of them starts a rank, or none of them starts."""

from __future__ import annotations

import contextlib
import json
import time

from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.nodes.meeting import LOOK_EVERY_S, Meeting
from sgl_proxythinker.nodes.statement import Statement, difference

_READ_WITHIN_S = 30.0


class NodesDiffer(LaunchError):
    """The nodes would not serve the same. Each of them finds it by itself."""


def agree(meeting: Meeting, own: Statement) -> None:
    """Return once every node has said the same. All of them return, or none does.

    Args:
        meeting: this node has come to it.
        own: what this node would serve.

    Raises:
        NodesDiffer: a node would serve something else; names it, and how the two differ.
        LaunchError: one was not heard of, or has ended.
    """
    own = json.loads(json.dumps(own))
    meeting.tell("statement", own)
    told = meeting.of_all("statement", is_first=True)
    meeting.hosts = {node: of_node["host"] for node, of_node in told.items()}
    meeting.tell("read", True)
    differences = [
        found
        for node in range(1, meeting.nodes)
        if (found := difference(told[0], told[node], (meeting.name(0), meeting.name(node))))
    ]
    if differences:
        if meeting.node == 0:
            _wait_until_all_have_read(meeting)
        raise NodesDiffer(
            f"the nodes of this server would not serve the same: {'; '.join(differences)}. Give all of them the same "
            "flags, checkpoints and packages; flags that follow from the hardware have to be given where it differs."
        )


def _wait_until_all_have_read(meeting: Meeting) -> None:
    """The store ends with this process."""
    deadline = time.monotonic() + _READ_WITHIN_S
    with contextlib.suppress(RuntimeError):
        while time.monotonic() < deadline and not all(meeting.told("read", node) for node in meeting.others):
            time.sleep(LOOK_EVERY_S)
