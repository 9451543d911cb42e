"""A quick look at a family, without a server: accuracy by kind on the validation split, for tuning.

    python -m benchmarks.tiny_family.look --family models/family --count 500 --alphas 0 0.5 1

Each model alone, directly and with its answer begun by "<think>" (what is latent in it); and the guided base.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.tiny_family.checkpoint import in_half, load_model, load_tokenizer
from benchmarks.tiny_family.corpus import Batch, Prompts
from benchmarks.tiny_family.grpo import SLOTS, decode
from benchmarks.tiny_family.rollout import Sampler
from sgl_proxythinker.tiny_family.grading import is_right, read_answer
from sgl_proxythinker.tiny_family.problems import problems
from sgl_proxythinker.tiny_family.settings import ANSWER_TOKENS
from sgl_proxythinker.tiny_family.wordings import VALIDATION

ROLES = ("base", "expert", "amateur")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiny_family.look", description=__doc__.splitlines()[0])
    parser.add_argument("--family", type=Path, required=True)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--alphas", type=float, nargs="*", default=[0.5])
    parser.add_argument("--ablations", type=float, nargs="*", default=[], help="alphas without the amateur")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(arguments)

    tokenizer = load_tokenizer(args.family / "amateur")
    prompts, some = Prompts(tokenizer), list(problems(VALIDATION, args.count))
    batch = prompts.batch(some).to(args.device)
    begun = len(tokenizer.encode("<think>\n", add_special_tokens=False).ids)
    half = torch.float16 if args.device != "cpu" else torch.float32
    present = [role for role in ROLES if (args.family / role).exists()]
    models = {role: in_half(load_model(args.family / role).to(args.device).eval(), half) for role in present}

    def score(title: str, roles: list[str], weights: list[float], begin: str = "") -> None:
        sampler = Sampler([models[role] for role in roles], prompts, len(some), SLOTS)
        asked = begin_answers(batch, tokenizer.encode(begin, add_special_tokens=False).ids) if begin else batch
        answers = sampler.sample(asked, weights=weights, temperature=args.temperature, tokens=ANSWER_TOKENS - begun)
        right, thinks, verifies, backtracks = defaultdict(list), 0, 0, 0
        for one, text in zip(some, decode(tokenizer, answers), strict=True):
            reading = read_answer(begin + text)
            thinks, verifies = thinks + reading.thinks, verifies + reading.verifies
            backtracks += reading.backtracks
            for group in ("all", one.kind, f"level {one.level}"):
                right[group].append(is_right(begin + text, one.answer))
        row = {group: round(sum(values) / len(values), 3) for group, values in sorted(right.items())}
        count, length = len(some), float(answers.is_answer.sum()) / len(some)
        shares = {"thinks": thinks / count, "verifies": verifies / count, "backtracks": backtracks / count}
        print(json.dumps({"what": title, **row, **shares, "tokens": round(length, 1)}), flush=True)

    for role in present:
        score(role, [role], [1.0])
        score(f"{role}, begun with <think>", [role], [1.0], "<think>\n")
    if len(present) == len(ROLES):
        for alpha in args.alphas:
            score(f"guided {alpha}", list(ROLES), [1.0, alpha, -alpha])
        for alpha in args.ablations:
            score(f"without amateur {alpha}", ["base", "expert"], [1.0, alpha])


def begin_answers(batch: Batch, tokens: list[int]) -> Batch:
    """The batch with `tokens` after each prompt."""
    ids = torch.cat((batch.input_ids, batch.input_ids.new_zeros(len(batch.input_ids), len(tokens))), 1)
    places = batch.lengths[:, None] + torch.arange(len(tokens), device=ids.device)
    ids = ids.scatter(1, places, torch.tensor(tokens, device=ids.device).expand(len(ids), -1))
    return replace(batch, input_ids=ids, lengths=batch.lengths + len(tokens))


if __name__ == "__main__":
    main()
