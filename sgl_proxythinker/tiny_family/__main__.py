"""Writes the flags that serve the family to standard output; with --experts, those of its second expert too."""

import argparse
import sys

from sgl_proxythinker.tiny_family import AMATEUR, BASE, EXPERT, SPECIALIST

parser = argparse.ArgumentParser(prog="python -m sgl_proxythinker.tiny_family", description=__doc__)
parser.add_argument("--experts", action="store_true", help=f"also {SPECIALIST.name}, for paths and odd rows")
flags = ["--model-path", BASE, "--proxy-expert-path", EXPERT, "--proxy-amateur-path", AMATEUR]
if parser.parse_args().experts:
    flags += ["--proxy-expert", f"{SPECIALIST.name}={SPECIALIST}"]
sys.stdout.write(" ".join(map(str, flags)) + "\n")
