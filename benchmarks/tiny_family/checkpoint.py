"""Models of the family as `transformers` objects, and as checkpoints in the published layout."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TypeVar

import torch
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from benchmarks.tiny_family.config import Config
from benchmarks.tiny_family.solutions import slow_solution
from sgl_proxythinker.programs.random_models.qwen2_vl import qwen2_5_vl_config
from sgl_proxythinker.programs.random_models.tokenizer import SPECIAL_TOKENS, make_tokenizer
from sgl_proxythinker.programs.random_triple import write_checkpoint
from sgl_proxythinker.tiny_family.problems import problems
from sgl_proxythinker.tiny_family.wordings import TRAIN

DTYPE = "float16"  # more digits than bfloat16, and no weight of ours comes near its range
PUBLISHED_NAMES = (("model.language_model.", "model."), ("model.visual.", "visual."))
Module = TypeVar("Module", bound=torch.nn.Module)
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


def family_tokenizer(config: Config) -> Tokenizer:
    """Byte pairs learned from the training split's words; the same at every call."""
    rng, texts = random.Random(0), [SYSTEM, "<|im_start|>user\n", "<|im_start|>assistant\n"] * 1000
    for one in problems(TRAIN, 4000):
        texts += [one.question, slow_solution(one, rng) if one.reading else one.answer]
    return make_tokenizer(texts, config.tokens)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Of a checkpoint. `family_tokenizer` gives another one as soon as a wording changes."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def new_model(config: Config, role: str, tokenizer: Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """A model with fresh weights, float32, by torch's global seed."""
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    settings = qwen2_5_vl_config(config.size(role), config.head_rows, ids, DTYPE)
    settings["rope_scaling"] = dict(settings["rope_scaling"])
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**settings)).float()
    # The usual standard deviation of 0.02 suits wide layers; ours would pass on a fifth of what they get.
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            quiet = 0.3 if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight")) else 1.0
            torch.nn.init.normal_(weight, std=quiet / weight[0].numel() ** 0.5)
    return model


def load_model(folder: Path | str) -> Qwen2_5_VLForConditionalGeneration:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def save_model(
    model: Qwen2_5_VLForConditionalGeneration, folder: Path, config: Config, role: str, tokenizer: Tokenizer
) -> None:
    """Write a whole checkpoint in 16 bits, as `programs.random_triple` does."""
    weights = {}
    for name, weight in model.state_dict().items():
        for ours, published in PUBLISHED_NAMES:
            name = published + name.removeprefix(ours) if name.startswith(ours) else name
        weights[name] = weight.detach().cpu()
    write_checkpoint(folder, config.size(role), config.head_rows, weights, tokenizer, DTYPE)


def in_half(model: Module, dtype: torch.dtype) -> Module:
    """The same model with its weights in `dtype`; the frequencies of its rotary embeddings stay float32."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return model
