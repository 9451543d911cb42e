"""Presets: how a published expert wants to be asked. They are data: `presets.yaml`, or a copy of it."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from sgl_proxythinker.evaluation.benchmarks.wording import Wording
from sgl_proxythinker.evaluation.errors import EvaluationError
from sgl_proxythinker.evaluation.grading.last import AnswerIn

SHIPPED = Path(__file__).with_name("presets.yaml")
DEFAULT = "vl-rethinker"


class Preset(BaseModel):
    """What is added to a question, and within which limits it is answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    suffix: str
    answer_in: AnswerIn = AnswerIn.ANY
    mathvision: Wording
    min_pixels: int | None = Field(default=None, gt=0)
    max_pixels: int | None = Field(default=None, gt=0)
    max_tokens: int = Field(gt=0)

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> Preset:
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}")
        return self


def read_presets(path: Path = SHIPPED) -> dict[str, Preset]:
    """All presets of a file, by name.

    Raises:
        EvaluationError: no such file, no YAML, a field that nobody reads, a value that can't be.
    """
    try:
        return TypeAdapter(dict[str, Preset]).validate_python(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as problem:
        raise EvaluationError(f"presets can't be read from {path}: {problem}") from problem
