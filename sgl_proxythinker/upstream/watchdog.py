"""SGLang's watch over the child processes of a server."""

from sglang.srt.utils.watchdog import SubprocessWatchdog

__all__ = ["SubprocessWatchdog"]
