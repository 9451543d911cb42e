"""The entry point that SGLang loads in every process; the only module that knows the hooks of `patches/`."""

from __future__ import annotations

from sgl_proxythinker.launch import hooks
from sgl_proxythinker.patches import RECORDS, STAGES


def register() -> None:
    """Entry point `proxythinker` of the group `sglang.srt.plugins`.

    Adds the flags and nothing else: a server that doesn't ask for the plugin by name is not changed.
    """
    provide_hooks()
    hooks.register(hooks.Stage.COMMAND_LINE)


def provide_hooks() -> None:
    """Let `launch.hooks` know what there is to install; child processes begin with it too."""
    hooks.provide(STAGES, RECORDS, provide_hooks)
