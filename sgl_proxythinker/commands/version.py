"""Say which versions are installed: this package's, SGLang's and torch's."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.metadata import version

from sgl_proxythinker.version import __version__

BESIDE = ("sglang", "torch", "transformers")


def main(arguments: list[str]) -> None:
    """Print a line for each, as an issue about this package should have them."""
    argparse.ArgumentParser(prog="proxythinker version", description=__doc__).parse_args(arguments)
    lines = [f"sgl-proxythinker {__version__}", *(f"{name} {version(name)}" for name in BESIDE)]
    sys.stdout.write("\n".join([*lines, f"Python {platform.python_version()}", ""]))
