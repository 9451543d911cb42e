"""Let a program be collected wherever Python collects garbage.

Stock: ends a program's thread, also from `__del__`, after asking whether it is alive. Before Python 3.13 `is_alive`
       takes a lock of the threading module, which the thread that collects garbage may hold: while it starts. It waits
       for itself then, and every later start of a thread in the process waits with it.
Ours:  the thread is not asked, but whether the program has come to its end.
Why a hook: `__del__` calls the method of the same class.
"""

from types import SimpleNamespace

from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.lang.interpreter:StreamExecutor.end",
    signature="(self)",
    why="programs that score choices hung now and then: each call starts a thread for each choice",
    until="SGLang's finalizer takes no locks, or Python 3.13 is the oldest that it runs on",
    checked={"0.5.17": "9077dff46d9d"},
)


def around(original, executor, _namespace=SimpleNamespace):
    # At the end of a process a program may be collected after this module's names are gone.
    if not executor.use_thread:
        return original(executor)
    worker, executor.worker = executor.worker, _namespace(is_alive=lambda: not executor.is_finished)
    try:
        return original(executor)
    finally:
        executor.worker = worker
