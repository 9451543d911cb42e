"""Tiny models of random weights, one row for each architecture that is served, and the triples that are made of them.

Each is a whole checkpoint in the layout of the published ones, so `transformers` and SGLang load it as they load the
real models, without a network. They are written with torch, tokenizers and safetensors alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sgl_proxythinker.programs.random_models import qwen2_vl, qwen3_vl, text
from sgl_proxythinker.programs.random_models.pictures import qwen2_image_config, qwen3_image_config
from sgl_proxythinker.programs.random_models.size import SMALL, WIDE, Size
from sgl_proxythinker.programs.random_models.tokenizer import LLAMA, QWEN, Vocabulary
from sgl_proxythinker.programs.random_models.weights import Random, Weights


@dataclass(frozen=True)
class RandomModel:
    """How a model of one architecture is made."""

    weights: Callable[[Size, int, Random, float], Weights]  # of size, head rows and spread of the logits
    config: Callable[[Size, int, Mapping[str, int], str], dict]  # of size, head rows, ids of special tokens and dtype
    image_config: Callable[[], dict] | None = None
    vocabulary: Vocabulary = QWEN


class Family(NamedTuple):
    """What the models of a triple are."""

    base: RandomModel
    small: RandomModel  # expert and amateur
    base_size: Size = SMALL
    wide: Size = WIDE  # of a base that is larger than they are

    @property
    def models(self) -> tuple[RandomModel, RandomModel, RandomModel]:
        """Of base, expert and amateur."""
        return self.base, self.small, self.small


# Where the heads together are not as wide as the residual stream.
_NARROW = Size(layers=4, heads=8, kv_heads=4, mlp=512, width=192, vision_layers=3)
# SGLang takes it for granted that three blocks of the tower of a mixture of experts reach into the decoder.
_EXPERTS = Size(layers=4, heads=8, kv_heads=4, mlp=128, width=192, experts=16, vision_layers=4)

QWEN2_5_VL = RandomModel(qwen2_vl.qwen2_5_vl_weights, qwen2_vl.qwen2_5_vl_config, qwen2_image_config)
_QWEN2_VL = RandomModel(
    qwen2_vl.qwen2_vl_weights, qwen2_vl.qwen2_vl_config,
    lambda: qwen2_image_config() | {"processor_class": "Qwen2VLProcessor"},
)  # fmt: skip
_QWEN3_VL = RandomModel(qwen3_vl.qwen3_vl_weights, qwen3_vl.qwen3_vl_config, qwen3_image_config)
_QWEN2 = RandomModel(text.qwen2_weights, text.qwen2_config)
_QWEN3 = RandomModel(text.qwen3_weights, text.qwen3_config)
_LLAMA = RandomModel(text.llama_weights, text.llama_config, vocabulary=LLAMA)

# By the name that `--family` takes; a base that is a mixture of experts has dense small models.
FAMILIES = {
    "qwen2.5-vl": Family(QWEN2_5_VL, QWEN2_5_VL),
    "qwen2-vl": Family(_QWEN2_VL, _QWEN2_VL),
    "qwen3-vl": Family(_QWEN3_VL, _QWEN3_VL, wide=_NARROW),
    "qwen3-vl-moe": Family(_QWEN3_VL, _QWEN3_VL, _EXPERTS, _EXPERTS),
    "qwen2": Family(_QWEN2, _QWEN2),
    "qwen3": Family(_QWEN3, _QWEN3, wide=_NARROW),
    "qwen3-moe": Family(_QWEN3, _QWEN3, _EXPERTS, _EXPERTS),
    "llama": Family(_LLAMA, _LLAMA),
}
