"""The names of models, and those that every server has."""

from __future__ import annotations

import re

# Names are joined by `+` and ended by `:` in the keys of the radix tree, and typed in flags.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Role(str):
    """The name of a model in the roster of a server: the base, or a small model that steers it.

    Raises:
        ValueError: it has other characters than lower-case letters, digits, `-` and `_`, or more than 64.
    """

    __slots__ = ()

    def __new__(cls, name: str) -> Role:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} can't name a model: use up to 64 lower-case letters, digits, '-' and '_', a letter or digit "
                "first"
            )
        return super().__new__(cls, name)


# The paper's reference code says `positive` for the expert and `negative` for the amateur.
BASE = Role("base")  # large, untuned: has the knowledge
EXPERT = Role("expert")  # small, RL-tuned: has the slow-thinking behaviour
AMATEUR = Role("amateur")  # the expert before RL: its bias is subtracted

DRAFTER = EXPERT  # who writes ahead under speculation: its logits are needed at every position anyway
