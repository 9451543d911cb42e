"""Writes the flags that serve the tiny family to standard output; with --experts, those of its second expert too."""

from __future__ import annotations

import argparse
import sys

from sgl_proxythinker.tiny_family import AMATEUR, BASE, EXPERT, SPECIALIST


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="proxythinker tiny-family", description=__doc__)
    parser.add_argument("--experts", action="store_true", help=f"also {SPECIALIST.name}, for paths and odd rows")
    flags = ["--model-path", BASE, "--proxy-expert-path", EXPERT, "--proxy-amateur-path", AMATEUR]
    if parser.parse_args(arguments).experts:
        flags += ["--proxy-expert", f"{SPECIALIST.name}={SPECIALIST}"]
    sys.stdout.write(" ".join(map(str, flags)) + "\n")


if __name__ == "__main__":
    main()
