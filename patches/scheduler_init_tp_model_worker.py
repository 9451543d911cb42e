"""Put our worker, three models behind SGLang's worker interface, in the place of the scheduler's.

Stock: the scheduler builds a `TpModelWorker` for the one model it serves.
Ours:  it builds a `ProxyWorker`, which is one, when this server has proxies; over several hosts once the ranks of all
       of them are about to. With --enable-metrics its steps are counted.
Why a hook: the class is named inside this method; no registry or argument reaches it.
"""

from sgl_proxythinker.nodes.meeting import Meeting
from sgl_proxythinker.server import is_ours, proxy_config, proxy_placement
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.managers.scheduler:Scheduler.init_tp_model_worker",
    signature="(self)",
    why="the scheduler would serve the base model alone",
    until="SGLang takes the worker class from a registry",
    checked={"0.5.17": "f235391b11b1"},
)


def around(original, scheduler):
    config = proxy_config(scheduler.server_args) if is_ours(scheduler.server_args) else None
    if config is None:
        return original(scheduler)
    from sgl_proxythinker.metrics.steps import count_steps
    from sgl_proxythinker.step.worker import ProxyWorker

    if scheduler.server_args.nnodes > 1:
        Meeting.of(scheduler.server_args).announce_rank(scheduler.ps.tp_rank, scheduler.ps.tp_size)
    placement = proxy_placement(scheduler.server_args)
    scheduler.tp_worker = ProxyWorker(
        config,
        placement,
        server_args=scheduler.server_args,
        gpu_id=scheduler.ps.gpu_id,
        ps=scheduler.ps,
        nccl_port=scheduler.nccl_port,
    )
    if scheduler.server_args.enable_metrics:
        count_steps(scheduler, placement)
