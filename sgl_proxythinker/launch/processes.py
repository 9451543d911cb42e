"""What SGLang's child processes run first: ours, then its own.

Spawned processes import SGLang before they load plugins, so the CPU support and the scheduler's hooks are put in
place here, around the functions that upstream would have run.
"""

from __future__ import annotations

from typing import Any

from sgl_proxythinker.launch import cpu


def run_scheduler(server_args: Any, *args: Any, **kwargs: Any) -> None:
    """Stands in for `sglang.srt.managers.scheduler.run_scheduler_process`."""
    _prepare(server_args)
    from sglang.srt.managers.scheduler import run_scheduler_process

    from sgl_proxythinker.patches import SCHEDULER
    from sgl_proxythinker.patches._install import install

    install(SCHEDULER)
    run_scheduler_process(server_args, *args, **kwargs)


def run_detokenizer(server_args: Any, *args: Any, **kwargs: Any) -> None:
    """Stands in for `sglang.srt.managers.detokenizer_manager.run_detokenizer_process`."""
    _prepare(server_args)
    from sglang.srt.managers.detokenizer_manager import run_detokenizer_process

    from sgl_proxythinker.patches import DETOKENIZER
    from sgl_proxythinker.patches._install import install

    install(DETOKENIZER)
    run_detokenizer_process(server_args, *args, **kwargs)


def _prepare(server_args: Any) -> None:
    if server_args.device == "cpu":
        cpu.install(server_args.tp_size)
