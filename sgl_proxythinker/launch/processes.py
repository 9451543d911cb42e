"""What SGLang's child processes run first: ours, then its own.

Spawned processes import SGLang before they load plugins, so the CPU support and the scheduler's hooks are put in
place here, around the functions that upstream would have run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sgl_proxythinker.launch import cpu
from sgl_proxythinker.launch.hooks import Stage, install
from sgl_proxythinker.nodes.meeting import find_the_store
from sgl_proxythinker.server import proxy_config


def run_scheduler(provide_hooks: Callable[[], None], server_args: Any, *args: Any, **kwargs: Any) -> None:
    """Stands in for `sglang.srt.managers.scheduler.run_scheduler_process`, once `provide_hooks` is bound."""
    _prepare(server_args)
    from sglang.srt.managers.scheduler import run_scheduler_process

    provide_hooks()
    install(Stage.SCHEDULER)
    run_scheduler_process(server_args, *args, **kwargs)


def run_detokenizer(provide_hooks: Callable[[], None], server_args: Any, *args: Any, **kwargs: Any) -> None:
    """Stands in for `sglang.srt.managers.detokenizer_manager.run_detokenizer_process`, as `run_scheduler` does."""
    _prepare(server_args)
    from sglang.srt.managers.detokenizer_manager import run_detokenizer_process

    provide_hooks()
    install(Stage.DETOKENIZER)
    run_detokenizer_process(server_args, *args, **kwargs)


def _prepare(server_args: Any) -> None:
    if server_args.device == "cpu":
        cpu.install(server_args.tp_size, server_args.nnodes)
    config = proxy_config(server_args)
    if config is not None and server_args.nnodes > 1:
        find_the_store()
    if config is not None and config.drafts:
        from sgl_proxythinker.speculation.algorithm import register

        register()
