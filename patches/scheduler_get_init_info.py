"""Let every scheduler prove, before it is ready, that three models are its worker's.

Stock: the dict that a scheduler sends to the main process when it is ready; /server_info shows it.
Ours:  with a field `proxy` that only a worker of ours can fill; the main process stops the launch without it.
Why a hook: upstream sends nothing about the worker.
"""

from sgl_proxythinker.server import is_ours, proxy_config
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.scheduler:Scheduler.get_init_info",
    signature="(self)",
    why="a scheduler whose worker is not ours would be believed",
    until="SGLang reports the worker's class at the handshake",
    checked={"0.5.17": "cad2c08e3d8d"},
)


def around(original, scheduler):
    info = original(scheduler)
    if is_ours(scheduler.server_args):
        info["proxy"] = None
        if proxy_config(scheduler.server_args) is not None:
            info["proxy"] = scheduler.tp_worker.describe()
    return info
