"""Problems as batches of token ids and pictures."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from benchmarks.tiny_family.checkpoint import SYSTEM
from benchmarks.tiny_family.forward import IMAGE_TOKENS
from benchmarks.tiny_family.problems import Problem, problem
from benchmarks.tiny_family.solutions import solution
from benchmarks.tiny_family.wordings import TRAIN

BEFORE_IMAGE = SYSTEM + "<|im_start|>user\n<|vision_start|>"
IGNORED = -100
LONG_ANSWER = 24  # tokens; shorter answers are batched apart, so that they are not padded to the slow ones


@dataclass
class Batch:
    """Prompts from column 0, padded at the end."""

    pictures: torch.Tensor  # [B, PIXELS, PIXELS, 3] uint8
    input_ids: torch.Tensor  # [B, T] int64
    labels: torch.Tensor  # [B, T] int64: the answer's tokens and the end of turn, the rest IGNORED
    lengths: torch.Tensor  # [B] int64, of prompts without answers

    def to(self, device: str) -> Batch:
        return Batch(**{name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()})

    def pin_memory(self) -> Batch:
        return Batch(**{name: tensor.pin_memory() for name, tensor in vars(self).items()})


class Prompts:
    """Turns problems into token ids, as the chat template does."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.before = self._encode(BEFORE_IMAGE)
        self.image = [tokenizer.token_to_id("<|image_pad|>")] * IMAGE_TOKENS
        self.end = tokenizer.token_to_id("<|im_end|>")
        self.pad = tokenizer.token_to_id("<|endoftext|>")

    @property
    def image_at(self) -> int:
        """Where the picture's tokens start."""
        return len(self.before)

    def prompt(self, question: str) -> list[int]:
        after = f"<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
        return self.before + self.image + self._encode(after)

    def answer(self, text: str) -> list[int]:
        return [*self._encode(text), self.end]

    def batch(self, some: Sequence[Problem], answers: Sequence[str] | None = None) -> Batch:
        prompts = [self.prompt(one.question) for one in some]
        endings = [self.answer(text) for text in answers] if answers is not None else [[] for _ in some]
        longest = max(len(a) + len(b) for a, b in zip(prompts, endings, strict=True))
        ids = torch.full((len(some), longest), self.pad)
        labels = torch.full_like(ids, IGNORED)
        for row, (start, end) in enumerate(zip(prompts, endings, strict=True)):
            ids[row, : len(start) + len(end)] = torch.tensor(start + end)
            labels[row, len(start) : len(start) + len(end)] = torch.tensor(end, dtype=torch.long)
        pictures = torch.from_numpy(np.stack([np.asarray(one.picture()) for one in some]))
        return Batch(pictures, ids, labels, torch.tensor([len(start) for start in prompts]))

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


class Corpus(IterableDataset):
    """Batches `first`, `first + 1`, ... of the training split; each is (short answers, long answers)."""

    def __init__(self, prompts: Prompts, seed: int, batch: int, first: int, steps: int) -> None:
        self.prompts, self.seed, self.batch, self.first, self.steps = prompts, seed, batch, first, steps

    def __iter__(self) -> Iterator[tuple[Batch, Batch]]:
        worker = get_worker_info()
        mine, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        # The loader takes from its workers in turn, so the order of steps does not depend on how many there are.
        for step in range(self.first + mine, self.steps, workers):
            some = [problem(TRAIN, step * self.batch + index) for index in range(self.batch)]
            rng = random.Random(f"answers {self.seed} {step}")
            answers = [solution(one, rng) for one in some]
            is_long = [len(self.prompts.answer(answer)) > LONG_ANSWER for answer in answers]
            yield tuple(
                self.prompts.batch(
                    [one for one, long in zip(some, is_long, strict=True) if long == wanted],
                    [answer for answer, long in zip(answers, is_long, strict=True) if long == wanted],
                )
                for wanted in (False, True)
            )


def loader(corpus: Corpus, workers: int, pin: bool) -> DataLoader:
    return DataLoader(
        corpus, batch_size=None, num_workers=workers, pin_memory=pin, prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
    )  # fmt: skip


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
