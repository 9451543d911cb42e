"""The family's configuration, as `config.yaml` has it."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from programs.random_models.size import Size

FILE = Path(__file__).with_name("config.yaml")
# M-RoPE gives the width of a picture the lowest frequencies. The published 1e6 leaves them without any turn over the
# six columns of a picture of ours; no text of ours is longer than a few hundred tokens, so a small one serves.
ROPE_THETA = 200.0


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pretrain(_Strict):
    seed: int
    steps: int
    batch: int
    warmup: int
    sight: float
    rate: dict[str, float]
    weight_decay: float


class Grpo(_Strict):
    seed: int
    steps: int
    problems: int
    samples: int
    tokens: int
    rate: float
    warmup: int
    kl: float


class Config(_Strict):
    tokens: int
    head_rows: int
    base: dict[str, int]
    amateur: dict[str, int]
    pretrain: Pretrain
    grpo: Grpo

    def size(self, role: str) -> Size:
        """The dimensions of a role; the expert's are the amateur's."""
        sizes = self.base if role == "base" else self.amateur
        return Size(**sizes, rope_theta=ROPE_THETA, full_vision_attention=True)


def load_config(file: Path = FILE, **changes: dict) -> Config:
    """Read the file; `changes` replace single settings of a section, as in `pretrain={"steps": 100}`."""
    content = yaml.safe_load(file.read_text())
    for section, settings in changes.items():
        content[section] = content[section] | settings
    return Config.model_validate(content)
