"""Apply hooks and prove that they are in place. SGLang's own loader logs a failed hook and serves on."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from types import ModuleType

from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from sgl_proxythinker.errors import LaunchError


def register_hooks(patches: Sequence[ModuleType]) -> None:
    """Tell SGLang's registry about the hooks; it applies them when its loader is done."""
    for patch in patches:
        target = patch.UPSTREAM.target
        if all(hook is not patch.around for _, hook, _ in HookRegistry._hooks.get(target, ())):
            HookRegistry.register(target, patch.around, HookType.AROUND)


def install(patches: Sequence[ModuleType]) -> None:
    """Hook every patch's symbol in this process, now.

    Raises:
        LaunchError: a hook did not apply. Serving without it would be the plain base under our name.
    """
    register_hooks(patches)
    HookRegistry.apply_hooks()
    for patch in patches:
        assert_installed(patch)


def assert_installed(patch: ModuleType) -> None:
    """Raise LaunchError unless calling the patched symbol goes through our hook."""
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


_ADVICE = (
    "The server would answer with the base model alone, so it does not start. Reinstall sgl-proxythinker and the "
    "SGLang version it names; if another plugin hooks the same symbol, exclude it with SGLANG_PLUGINS."
)
