"""Start our process functions in place of SGLang's.

Stock: spawns the schedulers and the detokenizer, waits until they are ready.
Ours:  the same processes, entered through functions that prepare the CPU and install the scheduler's hooks first; that
       they are ours is proven where they are launched (`engine_launch_scheduler_processes`).
Why a hook: spawned processes import SGLang before plugins load; HTTP server and offline engine both pass here.
"""

from functools import partial

from sgl_proxythinker.launch.dead_ranks import name_roles
from sgl_proxythinker.launch.hooks import provider
from sgl_proxythinker.launch.processes import run_detokenizer, run_scheduler
from sgl_proxythinker.launch.server_args import prepare_main_process
from sgl_proxythinker.launch.stopped_processes import watch_for_stops
from sgl_proxythinker.server import is_ours, proxy_placement
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.entrypoints.engine:Engine._launch_subprocesses",
    signature="(cls, server_args, init_tokenizer_manager_func, run_scheduler_process_func, "
    "run_detokenizer_process_func, port_args=None)",
    why="without it the schedulers would be SGLang's own and serve the base alone",
    until="SGLang loads plugins before a child's imports and lets them veto readiness",
    checked={"0.5.17": "f91506c3b209"},
)


def around(original, cls, server_args, **kwargs):
    if not is_ours(server_args):
        return original(cls, server_args, **kwargs)
    kwargs.update(
        run_scheduler_process_func=partial(run_scheduler, provider()),
        run_detokenizer_process_func=partial(run_detokenizer, provider()),
    )
    launched = original(cls, server_args, **kwargs)
    manager, scheduler_init_result, watchdog = launched[0], launched[3], launched[4]
    if manager is None:  # of a node without the HTTP server, once its schedulers have ended
        return launched
    prepare_main_process(manager)
    name_roles(watchdog, proxy_placement(server_args))
    watchdog.proxy_nodes = scheduler_init_result.proxy_nodes
    watch_for_stops(watchdog, server_args.watchdog_timeout)
    return launched
