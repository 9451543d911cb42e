"""Answers that were labelled by hand, for measuring observers: `labelled.jsonl`, by the rules of `labelling.md`."""

from __future__ import annotations

from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from sgl_proxythinker.evaluation.records import Behaviour

Split = Literal["tuning", "held_out"]


class Labelled(BaseModel):
    """An answer, and how often a reader sees each behaviour in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    split: Split  # patterns are chosen on the first and measured on the second
    text: str
    counts: dict[Behaviour, NonNegativeInt]


def labelled_answers() -> list[Labelled]:
    """All of both splits."""
    lines = resources.files(__package__).joinpath("labelled.jsonl").read_text("utf-8").splitlines()
    return [Labelled.model_validate_json(line) for line in lines]
