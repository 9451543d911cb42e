"""Apply hooks and prove that they are in place. SGLang's own loader logs a failed hook and serves on.

The entry point `plugin.py` provides the hooks of `patches/`, by the kind of process that needs them; nothing else here
knows them.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import ModuleType

from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.launch.start_log import keep_short
from sgl_proxythinker.upstream.record import Sources, Upstream, UpstreamDrift


class Stage(StrEnum):
    """When hooks are installed."""

    COMMAND_LINE = "command line"  # with the plugin, in every process
    MAIN_PROCESS = "main process"  # in the main process of a server that asked for us
    HTTP = "HTTP"  # beside the main process's, where there is an HTTP server
    SCHEDULER = "scheduler"
    DETOKENIZER = "detokenizer"
    PROGRAMS = "programs"  # in a process with a backend for programs


_stages: dict[Stage, Sequence[ModuleType]] = {}
_records: list[Upstream] = []
_providers: list[Callable[[], None]] = []


def provide(
    stages: Mapping[Stage, Sequence[ModuleType]], records: Sequence[Upstream], provider: Callable[[], None]
) -> None:
    """Say which hooks there are. Each is a module with a record `UPSTREAM` and a function `around(original, ...)`.

    Args:
        stages: the hooks of each stage.
        records: of every definition that is hooked, subclassed or called.
        provider: calls this with the same arguments in a child process.
    """
    _stages.update(stages)
    _records[:] = records
    _providers[:] = [provider]


def provider() -> Callable[[], None]:
    """What a child process has to call before it can install hooks; it can be pickled."""
    return _providers[0]


def register(stage: Stage) -> None:
    """Tell SGLang's registry about a stage's hooks; it applies them when its loader is done."""
    for patch in _stages[stage]:
        target = patch.UPSTREAM.target
        if all(hook is not patch.around for _, hook, _ in HookRegistry._hooks.get(target, ())):
            HookRegistry.register(target, patch.around, HookType.AROUND)


def install(stage: Stage) -> None:
    """Hook a stage's symbols in this process, now.

    Raises:
        LaunchError: a hook did not apply. Serving without it would be the plain base under our name.
    """
    keep_short(patch.UPSTREAM.target for patch in _stages[stage])
    register(stage)
    HookRegistry.apply_hooks()
    for patch in _stages[stage]:
        if not is_installed(patch):
            raise LaunchError(f"{patch.UPSTREAM.target} is not hooked: {patch.UPSTREAM.why}. {_ADVICE}")


def is_installed(patch: ModuleType) -> bool:
    """Whether calling the patched symbol goes through our hook, by following what wraps it."""
    try:
        function = pkgutil.resolve_name(patch.UPSTREAM.target)
    except (ImportError, AttributeError):
        return False
    while function is not None:
        closure = getattr(function, "__closure__", None) or ()
        if any(cell.cell_contents is patch.around for cell in closure):
            return True
        function = getattr(function, "__wrapped__", None)
    return False


def check_upstream() -> None:
    """Refuse an SGLang that nobody has read: a hook that no longer fits would serve the base alone.

    Raises:
        LaunchError: at least one definition that we hook or call differs from the one that was read.
    """
    problems = []
    for record in _records:
        try:
            record.check(Sources.installed(record.package))
        except UpstreamDrift as drift:
            problems.append(str(drift))
    if problems:
        raise LaunchError(
            "this SGLang is not one that sgl-proxythinker was checked with, so guidance might silently not happen. "
            "Install the release that `pip show sgl-proxythinker` requires, or see patches/README.md.\n"
            + "\n".join(problems)
        )


_ADVICE = (
    "The server would answer with the base model alone, so it does not start. Reinstall sgl-proxythinker and the "
    "SGLang version it names; if another plugin hooks the same symbol, exclude it with SGLANG_PLUGINS."
)
