"""The models of the servers under test."""

from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT

SMALL = (EXPERT, AMATEUR)
TRIPLE = (BASE, *SMALL)
