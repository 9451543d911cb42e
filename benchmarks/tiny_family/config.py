"""The family's configuration, as `config.yaml` has it."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from sgl_proxythinker.programs.random_models.size import Size
from sgl_proxythinker.roles import EXPERT
from sgl_proxythinker.tiny_family.problems import KINDS

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
    asked: tuple[str, ...] = KINDS  # kinds of questions; one that comes twice is asked twice as often
    rewarded: tuple[str, ...] = KINDS  # of these a right answer has a reward; the others are held to the amateur alone
    cooled: int = 0  # the last steps, over which the rate goes down to a tenth
    sparing: bool = False  # of a CPU: no pass over answers that have ended


class Config(_Strict):
    tokens: int
    head_rows: int
    base: dict[str, int]
    amateur: dict[str, int]
    pretrain: Pretrain
    grpo: Grpo
    experts: dict[str, Grpo] = {}  # further ones, from the same amateur

    def expert(self, name: str) -> Grpo:
        """How an expert is trained; the one of the published triple is called "expert"."""
        return self.grpo if name == str(EXPERT) else self.experts[name]

    def size(self, role: str) -> Size:
        """The dimensions of a role; the expert's are the amateur's."""
        sizes = self.base if role == "base" else self.amateur
        return Size(**sizes, rope_theta=ROPE_THETA, full_vision_attention=True)


def load_config(file: Path = FILE, **changes: dict) -> Config:
    """Read the file; `changes` replace single settings of a section, as in `pretrain={"steps": 100}`.

    Those of `grpo` hold for further experts too, whatever these say.
    """
    content = yaml.safe_load(file.read_text())
    further = {name: content["grpo"] | settings for name, settings in content.get("experts", {}).items()}
    for section, settings in changes.items():
        content[section] = content[section] | settings
    content["experts"] = {name: settings | changes.get("grpo", {}) for name, settings in further.items()}
    return Config.model_validate(content)
