"""A program's end takes no lock that the thread which collects it may hold."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.heavy

# A program whose thread has ended, and which is collected while threading's own lock is held, as garbage collection may
# do in any line: the last reference to it goes there.
PROGRAM = """
import threading
import time

from sglang.lang.backend.base_backend import BaseBackend
from sglang.lang.chat_template import get_chat_template
from sglang.lang.interpreter import StreamExecutor

from sgl_proxythinker.launch.hooks import Stage, install
from sgl_proxythinker.plugin import provide_hooks

if {ours}:
    provide_hooks()
    install(Stage.PROGRAMS)


class Backend(BaseBackend):
    def get_chat_template(self):
        return get_chat_template("default")


executor = StreamExecutor(Backend(), {{}}, None, None, stream=False)
worker = executor.worker
executor.queue.put(None)
while worker._tstate_lock.locked():
    time.sleep(0.01)
with threading._shutdown_locks_lock:
    del executor
# The thread of one that lives is ended.
executor = StreamExecutor(Backend(), {{}}, None, None, stream=False)
worker = executor.worker
executor.end()
worker.join()
# One that has failed is told to end all the same, and can be waited for.
executor = StreamExecutor(Backend(), {{}}, None, None, stream=False)
executor.submit(None.__class__)  # no expression: its execution fails
executor.worker.join()
executor.end()
executor.sync()
assert executor.error() is not None

print("ended")
"""


def run(ours: bool, within_s: float = 120) -> str | None:
    """What it prints; None where it hangs."""
    command = [sys.executable, "-c", PROGRAM.format(ours=ours)]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=within_s, check=True).stdout.strip()
    except subprocess.TimeoutExpired:
        return None


def test_a_program_that_is_collected_inside_of_threading_ends():
    """Kills: a finalizer that asks a thread whether it is alive; a thread that nothing ends."""
    assert run(ours=True) == "ended"


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="threads have no such lock since Python 3.13")
def test_stock_hangs_in_it():
    """Where this fails the hook is not needed any more."""
    assert run(ours=False, within_s=20) is None


AT_EXIT = """
import sglang as sgl
from sglang.lang.backend.base_backend import BaseBackend
from sglang.lang.chat_template import get_chat_template

from sgl_proxythinker.launch.hooks import Stage, install
from sgl_proxythinker.plugin import provide_hooks

provide_hooks()
install(Stage.PROGRAMS)


class Backend(BaseBackend):
    def get_chat_template(self):
        return get_chat_template("default")


@sgl.function
def say(s):
    s += "Hi"


state = say.run(backend=Backend())
"""


def test_a_program_that_is_alive_at_the_end_of_the_process_ends_in_silence():
    """Kills: a name of the hook's module, which is gone before the last program is."""
    ended = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, check=True)
    assert "Exception ignored" not in ended.stderr, ended.stderr[-1500:]
