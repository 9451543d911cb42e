"""Qwen2.5-VL checkpoints with the real dimensions and no weights, for `--load-format dummy`.

    python -m benchmarks.weightless models/weightless 32B 7B

Speed and memory depend on shapes, not on what the weights say. Each folder holds configs, processors and a tokenizer
with Qwen2.5's 151,665 ids and its special tokens at their own ids, so that guidance cuts the logits where it does for
the published models. A folder is about 3 MB and takes a second; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

from sgl_proxythinker.programs.random_models import tokenizer
from sgl_proxythinker.programs.random_models.pictures import qwen2_image_config
from sgl_proxythinker.programs.random_models.qwen2_vl import qwen2_5_vl_config
from sgl_proxythinker.programs.random_models.size import SMALL, Size

BYTES_PER_WEIGHT = 2  # bfloat16

TEXT_IDS = 151_643
# In the order of their ids, which follow the text tokens.
SPECIAL_TOKENS = (
    *tokenizer.SPECIAL_TOKENS,  # <|endoftext|> 151643 ... <|video_pad|> 151656
    "<tool_call>", "</tool_call>",
    "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
IDS = {token: TEXT_IDS + index for index, token in enumerate(SPECIAL_TOKENS)}
KNOWN_IDS = TEXT_IDS + len(SPECIAL_TOKENS)

CONTEXT_TOKENS = 32_768  # the published 128,000 would only make SGLang's request table larger


@dataclass(frozen=True)
class Dimensions:
    """One published model's shapes, and the bytes that follow from them."""

    size: Size
    head_rows: int
    tied: bool = False
    full_attention_blocks: tuple[int, ...] = (7, 15, 23, 31)
    stored: Mapping[str, Any] | None = None  # `quantization_config`: of the layers, not of tower, embedding and head
    layer_bits: float = 16  # of a weight of the layers, with its share of scales and zero points

    def kv_bytes_per_token(self, tp_size: int = 1) -> int:
        """On one rank; ranks past the number of KV heads hold copies."""
        heads = max(1, self.size.kv_heads // tp_size)
        return 2 * self.size.layers * heads * self.size.head_dim * BYTES_PER_WEIGHT

    @property
    def step_weight_bytes(self) -> int:
        """Bytes of the matrices that one decoding step reads: every layer and lm_head, no vision tower."""
        size, kv_width = self.size, self.size.kv_heads * self.size.head_dim
        layer = 2 * size.hidden * size.hidden + 2 * size.hidden * kv_width + 3 * size.hidden * size.mlp
        return int(size.layers * layer * self.layer_bits / 8) + self.head_rows * size.hidden * BYTES_PER_WEIGHT

    def quantized(self, stored: Mapping[str, Any], layer_bits: float) -> Dimensions:
        return replace(self, stored=stored, layer_bits=layer_bits)


def _published(layers: int, heads: int, kv_heads: int, mlp: int, vision_mlp: int) -> Size:
    return Size(
        layers=layers, heads=heads, kv_heads=kv_heads, head_dim=128, mlp=mlp,
        vision_layers=32, vision_heads=16, vision_head_dim=80, vision_mlp=vision_mlp,
    )  # fmt: skip


# hidden size = heads * 128: 2048, 3584, 5120, 8192
DIMENSIONS = {
    "3B": Dimensions(_published(36, 16, 2, mlp=11_008, vision_mlp=3_420), head_rows=151_936, tied=True),
    "7B": Dimensions(_published(28, 28, 4, mlp=18_944, vision_mlp=3_420), head_rows=152_064),
    "32B": Dimensions(_published(64, 40, 8, mlp=27_648, vision_mlp=3_456), head_rows=152_064),
    "72B": Dimensions(_published(80, 64, 8, mlp=29_568, vision_mlp=3_456), head_rows=152_064),
    # To rehearse on a CPU: few layers, the real vocabulary.
    "tiny": Dimensions(SMALL, head_rows=152_064, full_attention_blocks=(1,)),
}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm",
       "modules_to_not_convert": ["visual"]}  # fmt: skip
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "modules_to_not_convert": ["visual", "lm_head"]}
DIMENSIONS |= {f"{name}-fp8": DIMENSIONS[name].quantized(FP8, 8) for name in ("7B", "32B", "72B")}
# A scale of 16 bits and a zero point of 4 for each 128 weights. The published 72B has zeros beside its MLP, so that
# each of eight ranks has whole groups.
_WIDER = replace(DIMENSIONS["72B"], size=replace(DIMENSIONS["72B"].size, mlp=29_696))
DIMENSIONS |= {f"{name}-awq": DIMENSIONS[name].quantized(AWQ, 4 + 20 / 128) for name in ("7B", "32B")}
DIMENSIONS |= {"72B-awq": _WIDER.quantized(AWQ, 4 + 20 / 128)}


def write_weightless(folder: Path | str, name: str) -> Path:
    """Write the checkpoint `name` (a key of `DIMENSIONS`) into `folder`, without weights.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in (
        ("config.json", _config(DIMENSIONS[name])),
        ("generation_config.json", tokenizer.generation_config(IDS)),
        ("tokenizer.json", _tokenizer()),
        ("tokenizer_config.json", _tokenizer_config()),
        ("chat_template.json", {"chat_template": tokenizer.CHAT_TEMPLATE}),  # the processor's
        ("preprocessor_config.json", qwen2_image_config() | {"max_pixels": 12_845_056}),
    ):
        (folder / file).write_text(json.dumps(content))
    return folder


def _config(dimensions: Dimensions) -> dict[str, Any]:
    config = qwen2_5_vl_config(dimensions.size, dimensions.head_rows, IDS, "bfloat16")
    config["vision_config"]["fullatt_block_indexes"] = list(dimensions.full_attention_blocks)
    if dimensions.stored is not None:
        config["quantization_config"] = dict(dimensions.stored)
    return config | {
        "max_position_embeddings": CONTEXT_TOKENS,
        "sliding_window": CONTEXT_TOKENS,
        "tie_word_embeddings": dimensions.tied,
        # As published; without it transformers suspects a broken Mistral tokenizer and warns in every process.
        "transformers_version": "4.41.2",
    }


def _tokenizer() -> dict[str, Any]:
    """The tiny triple's tokenizer, filled up to Qwen's ids with tokens that no text is encoded to."""
    filled = json.loads(tokenizer.make_tokenizer().to_str())
    vocab = filled["model"]["vocab"]
    # Printable ASCII, so that each token is text at once: half of a UTF-8 character is held back until the next token,
    # and a client would take that wait for a slow first token.
    alphabet = map(chr, range(ord("!"), ord("~") + 1))
    fillers = [token for token in map("".join, islice(product(alphabet, repeat=3), TEXT_IDS)) if token not in vocab]
    vocab.update(zip(fillers, range(len(vocab), TEXT_IDS), strict=False))
    filled["added_tokens"] = [{"id": index, **_added(token)} for token, index in IDS.items()]
    return filled


def _tokenizer_config() -> dict[str, Any]:
    return tokenizer.tokenizer_config(IDS) | {
        "added_tokens_decoder": {str(index): _added(token) for token, index in IDS.items()},
        "model_max_length": CONTEXT_TOKENS,
    }


def _added(token: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"content": token, **flags, "special": token in tokenizer.SPECIAL_TOKENS}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weightless", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="gets one folder per name")
    parser.add_argument("names", nargs="+", choices=DIMENSIONS)
    args = parser.parse_args()
    for name in args.names:
        print(write_weightless(args.folder / name, name))


if __name__ == "__main__":
    main()
