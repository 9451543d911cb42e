"""Make a tiny Qwen2.5-VL base, expert and amateur of random weights, to try and test three-model decoding on.

    python -m programs.random_triple models/tiny
    python -m programs.random_triple models/tiny --unequal --seed 3

Each of DIR/base, DIR/expert and DIR/amateur is a whole checkpoint in the layout of the published ones (flat config,
`visual.` and `model.` weight names, chat template, image processor), so `transformers` and SGLang load it as they load
the real models, without a network. It needs torch, tokenizers and safetensors, and takes a few seconds.

The weights are random but not careless (see `ATTENTION_GAIN`): greedy text keeps changing, and depends on the picture
and on alpha, so that a test which compares tokens has something to compare.

Serve them with `--dtype float32`: SGLang takes a float32 checkpoint to mean float16.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

ROLES = ("base", "expert", "amateur")

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
END_OF_TURN = "<|im_end|>"

TEXT_TOKENS = 346  # 256 bytes, so that any text encodes, and 90 merges; the special tokens come after them
HEAD_ROW_MULTIPLE = 64
BASE_EXTRA_HEAD_ROWS = 64  # the published 72B, 32B and 7B have more rows than the 3B

# Qwen2.5's own way to split text into words before the byte pairs are merged.
WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

MERGE_TEXT = """
You are a helpful assistant. Look at the picture and answer the question step by step.
What is shown in the image? How many objects are there? Which of the two images is the larger one?
Let me think about this. Wait, I should check that again: the angle between the lines is not given in the figure.
First, find the area of the triangle. Then the answer is the sum of the two sides, so the final answer is the number.
The question asks for the value of the function. There is another way to see that the answer is right.
"""

CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

PATCH_PIXELS, MERGE_PATCHES, FRAMES_PER_PATCH = 14, 2, 2
TOKEN_PIXELS = (PATCH_PIXELS * MERGE_PATCHES) ** 2
MIN_IMAGE_TOKENS, MAX_IMAGE_TOKENS = 4, 64  # 56x56 to 224x224 pixels


@dataclass(frozen=True)
class Size:
    """The dimensions of one model. The defaults divide by a tensor-parallel size of 1, 2 and 4."""

    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    mlp: int = 256
    vision_layers: int = 2
    vision_heads: int = 4
    vision_head_dim: int = 32
    vision_mlp: int = 256
    rope_theta: float = 1e6
    full_vision_attention: bool = False  # else windows of 112 pixels, and full attention in the last block only

    def __post_init__(self) -> None:
        if self.head_dim < 32 or self.head_dim % 16:
            raise ValueError(f"head_dim is {self.head_dim}: M-RoPE splits it 1:3:3, so it must be 32, 48, 64, ...")
        if self.vision_head_dim % 4:
            raise ValueError(f"vision_head_dim is {self.vision_head_dim}: 2-D RoPE needs a multiple of 4")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads can't share {self.kv_heads} kv_heads evenly")

    @property
    def hidden(self) -> int:
        return self.heads * self.head_dim

    @property
    def vision_hidden(self) -> int:
        return self.vision_heads * self.vision_head_dim

    @property
    def mrope_section(self) -> list[int]:
        """Rotary frequencies for time, height and width, in the proportion of the published models (16, 24, 24)."""
        time = self.head_dim // 8
        return [time, 3 * self.head_dim // 16, 3 * self.head_dim // 16]


SMALL = Size()
WIDE = Size(layers=4, heads=8, kv_heads=4, mlp=512)
UNEQUAL = {"base": WIDE}  # for `sizes`: the base is wider and deeper than the proxies

# Each matrix keeps the scale of its input, so that a layer's attention, its MLP, the last token and the picture weigh
# about the same. With the usual 0.02 everywhere, attention averages over the whole prompt, all prompts look alike and
# greedy text is one token for ever. The three below were tried on seeds 0, 1, 3 and 6: about 22 different tokens in 24,
# and most pictures change the first token.
ATTENTION_GAIN = 2.0  # of queries and keys: attention picks few positions, and other ones at each step
BIAS = 0.1  # larger ones add up to a direction that all positions share, and one token wins half of the steps
NORM_JITTER = 0.1  # norm weights are not all 1, so that loading the wrong one shows


@dataclass(frozen=True)
class Triple:
    """Where the three checkpoints are."""

    base: Path
    expert: Path
    amateur: Path


def make_triple(
    folder: Path | str,
    *,
    seed: int = 0,
    sizes: Mapping[str, Size] | None = None,
    equal_proxies: bool = False,
    head_rows: Mapping[str, int] | None = None,
    padding_wins: bool = False,
    spread: float = 4.0,
    dtype: str = "float32",
) -> Triple:
    """Write `folder`/base, `folder`/expert and `folder`/amateur.

    Args:
        seed: same seed, same bytes.
        sizes: per role; a role that is not named is `SMALL`. See `UNEQUAL`.
        equal_proxies: the amateur is a copy of the expert, so that guidance must change nothing.
        head_rows: rows of embedding and lm_head, per role; default: the tokenizer's size rounded up to a multiple of
            64, and 64 more for the base. Rows past the tokenizer's size are padding: zero in lm_head.
        padding_wins: the base's padding rows are so large that, unguarded, one of them is the argmax.
        spread: standard deviation of one model's logits. 4 gives its likeliest token about half of the probability.
        dtype: of the weights, as torch names it.

    Returns:
        The three paths.
    """
    folder, tokenizer = Path(folder), make_tokenizer()
    tokens = tokenizer.get_vocab_size()
    for name, given in (("sizes", sizes or {}), ("head_rows", head_rows or {})):
        if unknown := set(given) - set(ROLES):
            raise ValueError(f"{name} names {sorted(unknown)}: the roles are {', '.join(ROLES)}")
    sizes = dict.fromkeys(ROLES, SMALL) | dict(sizes or {})
    head_rows = {role: default_head_rows(role, tokens) for role in ROLES} | dict(head_rows or {})
    for role, rows in head_rows.items():
        if rows < tokens:
            raise ValueError(f"head_rows of {role} is {rows}, but the tokenizer knows {tokens} ids")
    if equal_proxies and (sizes["expert"], head_rows["expert"]) != (sizes["amateur"], head_rows["amateur"]):
        raise ValueError("equal_proxies was asked for, but expert and amateur have different sizes")

    triple = Triple(*(folder / role for role in ROLES))
    for index, role in enumerate(ROLES):
        if role == "amateur" and equal_proxies:
            shutil.copytree(triple.expert, triple.amateur, dirs_exist_ok=True)
            continue
        size, rows, random = sizes[role], head_rows[role], Random(seed * len(ROLES) + index)
        weights = make_weights(size, rows, random, spread)
        silence_unused_rows(weights["lm_head.weight"], tokenizer)
        if padding_wins and role == "base":
            weights["lm_head.weight"][tokens:] = random.matrix(rows - tokens, size.hidden, 20 * spread)
        write_checkpoint(folder / role, size, rows, weights, tokenizer, dtype)
    return triple


def default_head_rows(role: str, tokens: int) -> int:
    rows = math.ceil(tokens / HEAD_ROW_MULTIPLE) * HEAD_ROW_MULTIPLE
    return rows + BASE_EXTRA_HEAD_ROWS if role == "base" else rows


def make_tokenizer(texts: Iterable[str] = MERGE_TEXT.splitlines(keepends=True), tokens: int = TEXT_TOKENS) -> Tokenizer:
    """Byte-level BPE as Qwen2.5 has it, special tokens last. Any text encodes, and text in NFC decodes to itself.

    Args:
        texts: what the merges are learned from.
        tokens: 256 bytes and the merges, without the special tokens; fewer if the texts hold no more to merge.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, BpeTrainer(vocab_size=tokens, initial_alphabet=alphabet, show_progress=False))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


class Random:
    """Normal numbers from one seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def matrix(self, rows: int, columns: int, gain: float = 1.0) -> torch.Tensor:
        """[rows, columns] float32 that maps inputs of standard deviation 1 to outputs of `gain`."""
        return self.normal(rows, columns) * (gain / math.sqrt(columns))


def make_weights(size: Size, rows: int, random: Random, spread: float) -> dict[str, torch.Tensor]:
    """The weights of one model under their published names, float32."""
    weights: dict[str, torch.Tensor] = {}

    def linear(name: str, outputs: int, inputs: int, gain: float = 1.0, bias: bool = False) -> None:
        weights[f"{name}.weight"] = random.matrix(outputs, inputs, gain)
        if bias:
            weights[f"{name}.bias"] = BIAS * random.normal(outputs)

    def norm(name: str, width: int) -> None:
        weights[f"{name}.weight"] = 1 + NORM_JITTER * random.normal(width)

    def mlp(name: str, width: int, inner: int, bias: bool) -> None:
        linear(f"{name}.gate_proj", inner, width, bias=bias)
        linear(f"{name}.up_proj", inner, width, bias=bias)
        linear(f"{name}.down_proj", width, inner, bias=bias)

    width, kv_width, vision = size.hidden, size.kv_heads * size.head_dim, size.vision_hidden

    weights["model.embed_tokens.weight"] = random.normal(rows, width)
    for index in range(size.layers):
        layer = f"model.layers.{index}"
        norm(f"{layer}.input_layernorm", width)
        linear(f"{layer}.self_attn.q_proj", width, width, ATTENTION_GAIN, bias=True)
        linear(f"{layer}.self_attn.k_proj", kv_width, width, ATTENTION_GAIN, bias=True)
        linear(f"{layer}.self_attn.v_proj", kv_width, width, bias=True)
        linear(f"{layer}.self_attn.o_proj", width, width)
        norm(f"{layer}.post_attention_layernorm", width)
        mlp(f"{layer}.mlp", width, size.mlp, bias=False)
    norm("model.norm", width)
    linear("lm_head", rows, width, spread)

    patch = random.matrix(vision, 3 * FRAMES_PER_PATCH * PATCH_PIXELS**2)
    weights["visual.patch_embed.proj.weight"] = patch.view(vision, 3, FRAMES_PER_PATCH, PATCH_PIXELS, PATCH_PIXELS)
    for index in range(size.vision_layers):
        block = f"visual.blocks.{index}"
        norm(f"{block}.norm1", vision)
        linear(f"{block}.attn.qkv", 3 * vision, vision, bias=True)
        linear(f"{block}.attn.proj", vision, vision, bias=True)
        norm(f"{block}.norm2", vision)
        mlp(f"{block}.mlp", vision, size.vision_mlp, bias=True)
    merged = vision * MERGE_PATCHES**2
    norm("visual.merger.ln_q", vision)
    linear("visual.merger.mlp.0", merged, merged, bias=True)
    linear("visual.merger.mlp.2", width, merged, bias=True)
    return weights


def silence_unused_rows(head: torch.Tensor, tokenizer: Tokenizer) -> None:
    """Zero the rows of lm_head that a trained model never chooses: padding, and special tokens but the end of turn."""
    head[tokenizer.get_vocab_size() :] = 0
    for token in SPECIAL_TOKENS:
        if token != END_OF_TURN:
            head[tokenizer.token_to_id(token)] = 0


def write_checkpoint(
    folder: Path, size: Size, rows: int, weights: Mapping[str, torch.Tensor], tokenizer: Tokenizer, dtype: str
) -> None:
    """Write weights, configs, tokenizer and processors of one model."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: weight.to(getattr(torch, dtype)).contiguous() for name, weight in weights.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    for name, content in (
        ("config.json", model_config(size, rows, ids, dtype)),
        ("generation_config.json", generation_config(ids)),
        ("tokenizer_config.json", tokenizer_config(ids)),
        ("preprocessor_config.json", image_config()),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def model_config(size: Size, rows: int, ids: Mapping[str, int], dtype: str) -> dict:
    """config.json in the flat form of the published checkpoints."""
    last_block = size.vision_layers - 1
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "torch_dtype": dtype,
        "vocab_size": rows,
        "hidden_size": size.hidden,
        "intermediate_size": size.mlp,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": size.rope_theta,
        "rope_scaling": {"type": "mrope", "mrope_section": size.mrope_section},
        "max_position_embeddings": 4096,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": size.layers,
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids[END_OF_TURN],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_config": {
            "depth": size.vision_layers,
            "hidden_act": "silu",
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_mlp,
            "num_heads": size.vision_heads,
            "in_chans": 3,
            "out_hidden_size": size.hidden,
            "patch_size": PATCH_PIXELS,
            "spatial_merge_size": MERGE_PATCHES,
            "spatial_patch_size": PATCH_PIXELS,
            "temporal_patch_size": FRAMES_PER_PATCH,
            "tokens_per_second": 2,
            # Windows of 112 pixels, so that a picture of 224 has four, and full attention in the last block.
            "window_size": 112,
            "fullatt_block_indexes": list(range(0 if size.full_vision_attention else last_block, size.vision_layers)),
        },
    }


def generation_config(ids: Mapping[str, int]) -> dict:
    # No temperature or penalty, unlike the published ones: SGLang makes them the defaults of every request.
    return {
        "bos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "eos_token_id": [ids[END_OF_TURN]],
    }


def tokenizer_config(ids: Mapping[str, int]) -> dict:
    added = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {str(index): {"content": token, **added} for token, index in ids.items()},
        "additional_special_tokens": [token for token in SPECIAL_TOKENS if token != "<|endoftext|>"],
        "eos_token": END_OF_TURN,
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "split_special_tokens": False,
        "model_max_length": 4096,
        "chat_template": CHAT_TEMPLATE,
    }


def image_config() -> dict:
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": MIN_IMAGE_TOKENS * TOKEN_PIXELS,
        "max_pixels": MAX_IMAGE_TOKENS * TOKEN_PIXELS,
        "patch_size": PATCH_PIXELS,
        "temporal_patch_size": FRAMES_PER_PATCH,
        "merge_size": MERGE_PATCHES,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }


def parse_head_rows(text: str) -> tuple[str, int]:
    role, _, rows = text.partition("=")
    return role, int(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m programs.random_triple", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="gets base/, expert/ and amateur/")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unequal", action="store_true", help="a base wider and deeper than the proxies")
    parser.add_argument("--equal-proxies", action="store_true", help="the amateur is a copy of the expert")
    parser.add_argument("--head-rows", nargs="*", type=parse_head_rows, default=[], metavar="ROLE=ROWS")
    parser.add_argument("--padding-wins", action="store_true", help="unguarded, the base would choose padding ids")
    parser.add_argument("--spread", type=float, default=4.0, help="standard deviation of the logits (%(default)s)")
    parser.add_argument("--dtype", default="float32", help="of the weights, as torch names it (%(default)s)")
    args = parser.parse_args(arguments)
    triple = make_triple(
        args.folder,
        seed=args.seed,
        sizes=UNEQUAL if args.unequal else None,
        equal_proxies=args.equal_proxies,
        head_rows=dict(args.head_rows),
        padding_wins=args.padding_wins,
        spread=args.spread,
        dtype=args.dtype,
    )
    print(f"base    {triple.base}\nexpert  {triple.expert}\namateur {triple.amateur}")


if __name__ == "__main__":
    main()
