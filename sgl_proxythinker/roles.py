"""The three models and what they are called everywhere."""

from enum import StrEnum


class Role(StrEnum):
    """One of the three models that read every request.

    The paper's reference code says `positive` for the expert and `negative` for the amateur.
    """

    BASE = "base"  # large, untuned: has the knowledge
    EXPERT = "expert"  # small, RL-tuned: has the slow-thinking behaviour
    AMATEUR = "amateur"  # the expert before RL: its bias is subtracted


PROXIES = (Role.EXPERT, Role.AMATEUR)
