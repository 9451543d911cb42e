"""Pre-train amateur and base by imitation, side by side on the same batches.

    python -m benchmarks.tiny_family.pretrain --out models/family [--steps N] [--workers 14]

Writes OUT/base, OUT/amateur, OUT/pretrain.jsonl (losses) and OUT/pretrain.pt, from which an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from torch.nn import functional
from tqdm import tqdm
from transformers import Qwen2_5_VLForConditionalGeneration

from benchmarks.tiny_family.checkpoint import family_tokenizer, new_model, save_model
from benchmarks.tiny_family.config import Config, load_config
from benchmarks.tiny_family.corpus import IGNORED, Batch, Corpus, Prompts, loader
from benchmarks.tiny_family.forward import embed, hidden_states, see

ROLES = ("base", "amateur")
LOG_EVERY, SAVE_EVERY = 50, 1000  # steps


class Learner:
    """One model and its optimizer."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, rate: float, weight_decay: float) -> None:
        self.model, self.rate = model, rate
        decayed = [weight for weight in model.parameters() if weight.ndim > 1]
        others = [weight for weight in model.parameters() if weight.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        fused = next(model.parameters()).is_cuda
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=fused)

    def step(self, factor: float) -> None:
        """Apply the gradients at `factor` times the rate."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def rate_factor(step: int, steps: int, warmup: int) -> float:
    """Linear up over `warmup` steps, then a cosine down to a twentieth."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2


def half_precision(device: torch.device) -> torch.autocast:
    """bfloat16 products on a GPU; a CPU without matrix units is slower with them."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def loss_sum(model: Qwen2_5_VLForConditionalGeneration, batch: Batch, image_at: int) -> torch.Tensor:
    """Cross entropy of the answers' tokens, summed, float32."""
    with half_precision(batch.pictures.device):
        hidden = hidden_states(model, embed(model, batch.input_ids, see(model, batch.pictures), image_at), image_at)
        wanted = batch.labels[:, 1:]
        is_answer = wanted != IGNORED
        logits = model.lm_head(hidden[:, :-1][is_answer])
    return functional.cross_entropy(logits.float(), wanted[is_answer], reduction="sum")


def train(config: Config, out: Path, device: str, workers: int) -> None:
    settings, tokenizer = config.pretrain, family_tokenizer(config)
    prompts = Prompts(tokenizer)
    torch.manual_seed(settings.seed)
    learners = {
        role: Learner(new_model(config, role, tokenizer).to(device).train(), rate, settings.weight_decay)
        for role, rate in (("base", settings.base_rate), ("amateur", settings.amateur_rate))
    }
    state, first = out / "pretrain.pt", 0
    if state.exists():
        saved = torch.load(state, map_location=device)
        first = saved["step"]
        for role, learner in learners.items():
            learner.model.load_state_dict(saved[role]["model"])
            learner.optimizer.load_state_dict(saved[role]["optimizer"])

    def save(step: int) -> None:
        content = {
            role: {"model": learner.model.state_dict(), "optimizer": learner.optimizer.state_dict()}
            for role, learner in learners.items()
        }
        torch.save({"step": step, **content}, state)
        for role, learner in learners.items():
            save_model(learner.model, out / role, config, role, tokenizer)

    corpus = Corpus(prompts, settings.seed, settings.batch, first, settings.steps)
    batches = loader(corpus, workers, device != "cpu")
    started, sums = time.perf_counter(), {}
    with (out / "pretrain.jsonl").open("a") as log:
        bar = tqdm(enumerate(batches, first), total=settings.steps, initial=first, unit="step", mininterval=5)
        for step, groups in bar:
            groups = [group.to(device) for group in groups]
            answers = [(group.labels != IGNORED).sum() for group in groups]
            for role, learner in learners.items():
                losses = [loss_sum(learner.model, group, prompts.image_at) for group in groups]
                (sum(losses) / sum(answers)).backward()
                learner.step(rate_factor(step, settings.steps, settings.warmup))
                for name, loss, count in zip(("short", "long"), losses, answers, strict=True):
                    sums.setdefault(f"{role}_{name}", []).append((loss.detach(), count))
            if (step + 1) % LOG_EVERY == 0:
                row = {name: float(sum(a for a, _ in pairs) / sum(b for _, b in pairs)) for name, pairs in sums.items()}
                row = {name: round(value, 4) for name, value in row.items()}
                log.write(json.dumps({"step": step + 1, "s": round(time.perf_counter() - started, 1), **row}) + "\n")
                log.flush()
                bar.set_postfix(row)
                sums.clear()
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == settings.steps:
                save(step + 1)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiny_family.pretrain", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="instead of config.yaml's")
    parser.add_argument("--batch", type=int, help="instead of config.yaml's")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw pictures")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(arguments)
    changes = {name: value for name in ("steps", "batch") if (value := getattr(args, name)) is not None}
    args.out.mkdir(parents=True, exist_ok=True)
    train(load_config(pretrain=changes), args.out, args.device, args.workers)


if __name__ == "__main__":
    main()
