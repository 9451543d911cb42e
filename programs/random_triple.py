"""Make a tiny base, expert and amateur of random weights, to try and test three-model decoding on.

    proxythinker random-triple models/tiny
    proxythinker random-triple models/tiny --family qwen3-vl --unequal --seed 3

Each of DIR/base, DIR/expert and DIR/amateur is a whole checkpoint in the layout of the published ones (config, names of
weights, chat template, image processor), so `transformers` and SGLang load it as they load the real models, without a
network. It needs torch, tokenizers and safetensors, and takes a few seconds.

The weights are random but not careless (see `random_models.weights`): greedy text keeps changing, and depends on the
picture and on alpha, so that a test which compares tokens has something to compare.

Serve them with `--dtype float32`: SGLang takes a float32 checkpoint to mean float16.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from sgl_proxythinker.programs.random_models import FAMILIES, QWEN2_5_VL, RandomModel
from sgl_proxythinker.programs.random_models.size import SMALL, WIDE, Size
from sgl_proxythinker.programs.random_models.tokenizer import (
    Vocabulary,
    generation_config,
    make_tokenizer,
    tokenizer_config,
)
from sgl_proxythinker.programs.random_models.weights import Random

ROLES = ("base", "expert", "amateur")
UNEQUAL = {"base": WIDE}  # for `sizes`: the base is wider and deeper than the proxies

HEAD_ROW_MULTIPLE = 64
BASE_EXTRA_HEAD_ROWS = 64  # the published 72B, 32B and 7B have more rows than the 3B


@dataclass(frozen=True)
class Triple:
    """Where the three checkpoints are."""

    base: Path
    expert: Path
    amateur: Path


def make_triple(
    folder: Path | str,
    *,
    family: str = "qwen2.5-vl",
    seed: int = 0,
    sizes: Mapping[str, Size] | None = None,
    equal_proxies: bool = False,
    equal_towers: bool = False,
    head_rows: Mapping[str, int] | None = None,
    padding_wins: bool = False,
    spread: float = 4.0,
    dtype: str = "float32",
) -> Triple:
    """Write `folder`/base, `folder`/expert and `folder`/amateur.

    Args:
        family: a key of `FAMILIES`.
        seed: same seed, same bytes.
        sizes: per role; a role that is not named is `SMALL`, a mixture of experts its family's. See `UNEQUAL`.
        equal_proxies: the amateur is a copy of the expert, so that guidance must change nothing.
        equal_towers: the amateur's vision tower and merger are the expert's, as RL often leaves them; the rest is its
            own.
        head_rows: rows of embedding and lm_head, per role; default: the tokenizer's size rounded up to a multiple of
            64, and 64 more for the base. Rows past the tokenizer's size are padding: zero in lm_head.
        padding_wins: the base's padding rows are so large that, unguarded, one of them is the argmax.
        spread: standard deviation of one model's logits. 4 gives its likeliest token about half of the probability.
        dtype: of the weights, as torch names it.

    Returns:
        The three paths.
    """
    models = dict(zip(ROLES, FAMILIES[family].models, strict=True))
    vocabulary = models["base"].vocabulary
    folder, tokenizer = Path(folder), make_tokenizer(vocabulary=vocabulary)
    tokens = tokenizer.get_vocab_size()
    for name, given in (("sizes", sizes or {}), ("head_rows", head_rows or {})):
        if unknown := set(given) - set(ROLES):
            raise ValueError(f"{name} names {sorted(unknown)}: the roles are {', '.join(ROLES)}")
    sizes = {"base": FAMILIES[family].base_size, "expert": SMALL, "amateur": SMALL} | dict(sizes or {})
    head_rows = {role: default_head_rows(role, tokens) for role in ROLES} | dict(head_rows or {})
    for role, rows in head_rows.items():
        if rows < tokens:
            raise ValueError(f"head_rows of {role} is {rows}, but the tokenizer knows {tokens} ids")
    if equal_proxies and (sizes["expert"], head_rows["expert"]) != (sizes["amateur"], head_rows["amateur"]):
        raise ValueError("equal_proxies was asked for, but expert and amateur have different sizes")
    if equal_towers and models["expert"].image_config is None:
        raise ValueError(f"equal_towers was asked for, but models of {family} have none")
    if equal_towers and sizes["expert"].tower != sizes["amateur"].tower:
        raise ValueError("equal_towers was asked for, but those of expert and amateur have different sizes")

    triple = Triple(*(folder / role for role in ROLES))
    tower: dict[str, torch.Tensor] = {}  # the expert's
    for index, role in enumerate(ROLES):
        if role == "amateur" and equal_proxies:
            shutil.copytree(triple.expert, triple.amateur, dirs_exist_ok=True)
            continue
        size, rows, random = sizes[role], head_rows[role], Random(seed * len(ROLES) + index)
        weights = models[role].weights(size, rows, random, spread)
        if role == "expert":
            tower = {name: weight for name, weight in weights.items() if "visual." in name}
        if role == "amateur" and equal_towers:
            weights |= tower
        silence_unused_rows(weights["lm_head.weight"], tokenizer, vocabulary)
        if padding_wins and role == "base":
            weights["lm_head.weight"][tokens:] = random.matrix(rows - tokens, size.hidden, 20 * spread)
        write_checkpoint(folder / role, size, rows, weights, tokenizer, dtype, models[role])
    return triple


def default_head_rows(role: str, tokens: int) -> int:
    rows = math.ceil(tokens / HEAD_ROW_MULTIPLE) * HEAD_ROW_MULTIPLE
    return rows + BASE_EXTRA_HEAD_ROWS if role == "base" else rows


def silence_unused_rows(head: torch.Tensor, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    """Zero the rows of lm_head that a trained model never chooses: padding, and special tokens but the end of turn."""
    head[tokenizer.get_vocab_size() :] = 0
    for token in vocabulary.special_tokens:
        if token != vocabulary.end_of_turn:
            head[tokenizer.token_to_id(token)] = 0


def write_checkpoint(
    folder: Path,
    size: Size,
    rows: int,
    weights: Mapping[str, torch.Tensor],
    tokenizer: Tokenizer,
    dtype: str,
    model: RandomModel = QWEN2_5_VL,
) -> None:
    """Write weights, configs, tokenizer and processors of one model."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: weight.to(getattr(torch, dtype)).contiguous() for name, weight in weights.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {token: tokenizer.token_to_id(token) for token in model.vocabulary.special_tokens}
    files = {
        "config.json": model.config(size, rows, ids, dtype),
        "generation_config.json": generation_config(ids, model.vocabulary),
        "tokenizer_config.json": tokenizer_config(ids, model.vocabulary),
    }
    if model.image_config is not None:
        files["preprocessor_config.json"] = model.image_config()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def parse_head_rows(text: str) -> tuple[str, int]:
    role, _, rows = text.partition("=")
    return role, int(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="proxythinker random-triple", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="gets base/, expert/ and amateur/")
    parser.add_argument("--family", choices=FAMILIES, default="qwen2.5-vl", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unequal", action="store_true", help="a base wider and deeper than the proxies")
    parser.add_argument("--equal-proxies", action="store_true", help="the amateur is a copy of the expert")
    parser.add_argument("--equal-towers", action="store_true", help="the amateur's vision tower is the expert's")
    parser.add_argument("--head-rows", nargs="*", type=parse_head_rows, default=[], metavar="ROLE=ROWS")
    parser.add_argument("--padding-wins", action="store_true", help="unguarded, the base would choose padding ids")
    parser.add_argument("--spread", type=float, default=4.0, help="standard deviation of the logits (%(default)s)")
    parser.add_argument("--dtype", default="float32", help="of the weights, as torch names it (%(default)s)")
    args = parser.parse_args(arguments)
    triple = make_triple(
        args.folder,
        family=args.family,
        seed=args.seed,
        sizes={"base": FAMILIES[args.family].wide} if args.unequal else None,
        equal_proxies=args.equal_proxies,
        equal_towers=args.equal_towers,
        head_rows=dict(args.head_rows),
        padding_wins=args.padding_wins,
        spread=args.spread,
        dtype=args.dtype,
    )
    print(f"base    {triple.base}\nexpert  {triple.expert}\namateur {triple.amateur}")


if __name__ == "__main__":
    main()
