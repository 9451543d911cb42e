"""Writes the flags that serve the family to standard output."""

import sys

from sgl_proxythinker.tiny_family import AMATEUR, BASE, EXPERT

sys.stdout.write(f"--model-path {BASE} --proxy-expert-path {EXPERT} --proxy-amateur-path {AMATEUR}\n")
