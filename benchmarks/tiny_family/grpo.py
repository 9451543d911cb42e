"""Make an expert: GRPO on the amateur, with one reward: 1 for the exact answer, 0 for any other.

    python -m benchmarks.tiny_family.grpo --family models/family [--expert NAME] [--steps N]

Reads FAMILY/amateur; writes FAMILY/NAME ("expert", or one of `experts` in config.yaml), FAMILY/grpo.jsonl (rewards;
grpo-NAME.jsonl of a further expert) and FAMILY/grpo.pt (grpo-NAME.pt), from which an interrupted run goes on.
Group-relative advantages as in DeepSeekMath (arXiv 2402.03300), one update for each batch of answers, so the ratio to
the sampling policy is 1 and nothing is clipped; the divergence from the amateur is its estimator k3.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch.utils.data import IterableDataset, get_worker_info
from tqdm import tqdm

from benchmarks.tiny_family.checkpoint import in_half, load_model, load_tokenizer, save_model
from benchmarks.tiny_family.config import Config, Grpo, load_config
from benchmarks.tiny_family.corpus import Batch, Prompts, loader
from benchmarks.tiny_family.forward import Forward
from benchmarks.tiny_family.pretrain import Learner
from benchmarks.tiny_family.resuming import load_state, open_log, save_state
from benchmarks.tiny_family.rollout import Answers, Sampler
from sgl_proxythinker.roles import EXPERT
from sgl_proxythinker.tiny_family.grading import is_right, read_answer
from sgl_proxythinker.tiny_family.problems import LEVELS, make_problem
from sgl_proxythinker.tiny_family.wordings import TRAIN

SLOTS = 288  # tokens of a prompt and its answer
ROWS_AT_ONCE = 512  # of a step's answers in one backward pass
SPARING_ROWS = 32  # the same where answers of one length are read at once
SAVE_EVERY = 25


class Questions(IterableDataset):
    """(prompts, answers) of steps `first`, `first + 1`, ...: training problems of the five reasoning kinds.

    The answer to a question whose kind is not rewarded is None.
    """

    def __init__(self, prompts: Prompts, settings: Grpo, first: int) -> None:
        self.prompts, self.settings, self.first = prompts, settings, first

    def __iter__(self) -> Iterator[tuple[Batch, list[str | None]]]:
        worker = get_worker_info()
        mine, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self.first + mine, self.settings.steps, workers):
            rng = random.Random(f"grpo {self.settings.seed} {step}")
            some = [
                make_problem(TRAIN, rng.choice(self.settings.asked), rng.choice(LEVELS), rng)
                for _ in range(self.settings.problems)
            ]
            yield self.prompts.batch(some), [one.answer if one.kind in self.settings.rewarded else None for one in some]


def logprobs(
    forward: Forward, pictures: torch.Tensor, sequences: torch.Tensor, samples: torch.Tensor | int, known_ids: int
) -> torch.Tensor:
    """[B, T] int64 -> [B, T - 1] float32: log p of each token after the first, given those before it.

    Of the distribution that is sampled from: over the ids that the tokenizer knows.
    """
    hidden = forward.hidden_states(sequences, forward.see(pictures).repeat_interleave(samples, 0))
    logits = forward.head(hidden[:, :-1])[..., :known_ids].float()
    return logits.log_softmax(-1).gather(-1, sequences[:, 1:, None])[..., 0]


def sequences_of(batch: Batch, answers: Answers, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompt and answer of each row, without a gap: [B, T] int64, and which are the answer's, [B, T] bool."""
    prompts, lengths = batch.input_ids.repeat_interleave(samples, 0), batch.lengths.repeat_interleave(samples, 0)
    rows, width = answers.tokens.shape
    tokens = torch.cat((prompts, prompts.new_zeros(rows, width)), 1)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    places = lengths[:, None] + torch.arange(width, device=tokens.device)
    tokens, mask = tokens.scatter(1, places, answers.tokens), mask.scatter(1, places, answers.is_answer)
    longest = int(mask.any(0).nonzero().max()) + 1
    return tokens[:, :longest], mask[:, :longest]


def rate_factor(step: int, settings: Grpo) -> float:
    """Linear up over `warmup` steps, constant, and linear down to a tenth over the last `cooled` ones."""
    cooled = max(0, step + 1 - (settings.steps - settings.cooled))
    return min(1.0, (step + 1) / settings.warmup) * (1 - 0.9 * cooled / max(1, settings.cooled))


class Part(NamedTuple):
    """What one backward pass reads: some groups' rows, of which equal answers of a group may be one row."""

    groups: torch.Tensor  # [G] int64
    rows: torch.Tensor  # [R] int64, of the step's sequences
    repeats: torch.Tensor | int  # [G] int64, rows of each group; or of all
    length: int  # tokens that are read


def parts(mask: torch.Tensor, samples: int) -> Iterator[Part]:
    """All rows in their order, ROWS_AT_ONCE at once.

    Args:
        mask: [B, T] bool, which tokens are the answer's.
    """
    rows, width = mask.shape
    for groups in torch.arange(rows // samples).split(ROWS_AT_ONCE // samples):
        first, last = int(groups[0]), int(groups[-1])
        yield Part(groups, torch.arange(first * samples, (last + 1) * samples), samples, width)


def sparing_parts(mask: torch.Tensor, samples: int, same_as: torch.Tensor) -> Iterator[Part]:
    """Rows of about one length at once, and of equal answers of a group the first.

    Args:
        same_as: [B] int64, the first row with the same sequence.
    """
    rows, width = mask.shape
    ends = (mask * torch.arange(1, width + 1)).amax(1)
    first = (same_as == torch.arange(rows)).nonzero()[:, 0]
    for some in first[ends[first].argsort(stable=True)].split(SPARING_ROWS):
        some = some.sort().values
        groups, repeats = (some // samples).unique(return_counts=True)
        yield Part(groups, some, repeats, int(ends[some].max()))


def first_same(sequences: torch.Tensor) -> torch.Tensor:
    """[B, T] int64 -> [B] int64: the first row that is equal to each."""
    _, kinds = sequences.unique(dim=0, return_inverse=True)
    rows = torch.arange(len(sequences))
    return torch.full_like(rows, len(rows)).scatter_reduce(0, kinds, rows, "amin")[kinds]


def train(config: Config, name: str, family: Path, device: str, workers: int) -> None:
    settings, tokenizer = config.expert(name), load_tokenizer(family / "amateur")
    prompts, samples = Prompts(tokenizer), settings.samples
    title = "grpo" if name == str(EXPERT) else f"grpo-{name}"
    torch.manual_seed(settings.seed)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    amateur = in_half(load_model(family / "amateur").to(device).eval().requires_grad_(False), dtype)
    learner = Learner(load_model(family / "amateur").to(device), dtype, settings.rate)
    first, state = 0, family / f"{title}.pt"
    if saved := load_state(state, settings):
        first = saved["step"]
        learner.load(saved["expert"])
    rows, known_ids = settings.problems * samples, tokenizer.get_vocab_size()
    sampler = Sampler([learner.model], prompts, rows, SLOTS)
    policy, reference = (Forward(model, prompts.image_at, SLOTS) for model in (learner.model, amateur))

    started = time.perf_counter()
    batches = loader(Questions(prompts, settings, first), workers, pin=False)
    with open_log(family / f"{title}.jsonl", first) as log:
        bar = tqdm(enumerate(batches, first), total=settings.steps, initial=first, unit="step", mininterval=5)
        for step, (batch, truths) in bar:
            batch = batch.to(device)
            answers = sampler.sample(batch, samples=samples, tokens=settings.tokens, sparing=settings.sparing)
            texts = decode(tokenizer, answers)
            truth_of = [truths[row // samples] for row in range(rows)]
            rewards = torch.tensor([float(is_right(*pair)) for pair in zip(texts, truth_of, strict=True)])
            groups = rewards.view(-1, samples)
            spread = groups.std(1, keepdim=True)
            advantages = ((groups - groups.mean(1, keepdim=True)) / (spread + 1e-4)).flatten().to(device)

            sequences, mask = sequences_of(batch, answers, samples)
            counted, divergence = mask.sum(), torch.zeros((), device=device)
            times, steps_parts = torch.ones(rows, device=device), parts(mask, samples)
            if settings.sparing:
                same_as = first_same(torch.cat((torch.arange(rows)[:, None] // samples, sequences), 1))
                times = torch.zeros(rows).index_add(0, same_as, times)
                advantages = torch.zeros(rows).index_add(0, same_as, advantages) / times
                steps_parts = sparing_parts(mask, samples, same_as)
            for groups_of, some, repeats, length in steps_parts:
                pictures, read = batch.pictures[groups_of], sequences[some, :length]
                now = logprobs(policy, pictures, read, repeats, known_ids)
                with torch.no_grad():
                    before = logprobs(reference, pictures, read, repeats, known_ids)
                gap = before - now
                k3 = gap.exp() - gap - 1
                # exp(now - now.detach()) is 1, with the gradient of the policy's ratio.
                gain = (now - now.detach()).exp() * advantages[some, None]
                of_answer = mask[some, 1:length] * times[some, None]
                loss = ((settings.kl * k3 - gain) * of_answer).sum() / counted
                loss.backward()
                divergence += (k3.detach() * of_answer).sum() / counted
            learner.set_rate(rate_factor(step, settings))
            learner.step()

            readings = [read_answer(text) for text in texts]
            counts = torch.tensor([truth is not None for truth in truth_of])  # can have a reward
            row = {
                "reward": round(float(rewards[counts].mean()), 4),
                "thinks": round(sum(one.thinks for one in readings) / rows, 4),
                "verifies": round(sum(one.verifies for one in readings) / rows, 4),
                "backtracks": round(sum(one.backtracks for one in readings) / rows, 4),
                "tokens": round(float(counted) / rows, 1),
                "kl": round(float(divergence), 5),
                "mixed": round(float((spread > 0).float().mean()), 3),  # share of groups that teach something
            }
            if not counts.all():
                held = [one.thinks for one, counted_too in zip(readings, counts, strict=True) if not counted_too]
                row["held_thinks"] = round(sum(held) / len(held), 4)
            log.write(json.dumps({"step": step + 1, "s": round(time.perf_counter() - started, 1), **row}) + "\n")
            log.flush()
            bar.set_postfix(row)
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == settings.steps:
                save_state(state, settings, step + 1, {"expert": learner.state()})
                save_model(learner.float_model(), family / name, config, str(EXPERT), tokenizer)


def decode(tokenizer: Tokenizer, answers: Answers) -> list[str]:
    """Texts of the answers, without special tokens."""
    lengths = answers.is_answer.sum(1).tolist()
    tokens = answers.tokens.tolist()
    return tokenizer.decode_batch([row[:length] for row, length in zip(tokens, lengths, strict=True)])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiny_family.grpo", description=__doc__.splitlines()[0])
    parser.add_argument("--family", type=Path, required=True)
    parser.add_argument("--expert", default=str(EXPERT), metavar="NAME", help="one of config.yaml's `experts`")
    parser.add_argument("--steps", type=int, help="instead of config.yaml's")
    parser.add_argument("--problems", type=int, help="instead of config.yaml's")
    parser.add_argument("--rate", type=float, help="instead of config.yaml's")
    parser.add_argument("--kl", type=float, help="instead of config.yaml's")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw pictures")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(arguments)
    names = ("steps", "problems", "rate", "kl")
    changes = {name: value for name in names if (value := getattr(args, name)) is not None}
    config = load_config(grpo=changes)
    if args.expert not in {str(EXPERT), *config.experts}:
        parser.error(f"no expert {args.expert}; there are {', '.join((str(EXPERT), *config.experts))}")
    train(config, args.expert, args.family, args.device, args.workers)


if __name__ == "__main__":
    main()
