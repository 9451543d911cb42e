"""Problems as batches of token ids and pictures."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from benchmarks.tiny_family.checkpoint import SYSTEM
from benchmarks.tiny_family.config import Pretrain
from benchmarks.tiny_family.forward import IMAGE_TOKENS
from benchmarks.tiny_family.sight import IGNORED, labels
from benchmarks.tiny_family.solutions import solution
from sgl_proxythinker.tiny_family.problems import Problem, ask, problem
from sgl_proxythinker.tiny_family.scene import Scene, draw
from sgl_proxythinker.tiny_family.wordings import TRAIN

BEFORE_IMAGE = SYSTEM + "<|im_start|>user\n<|vision_start|>"
ASKED = "<|im_end|>\n<|im_start|>assistant\n"
TOKENS = 256  # of a conversation
TURNS = 6  # questions of a conversation; those that don't fit are cut off


@dataclass
class Batch:
    """Prompts from column 0, padded at the end."""

    pictures: torch.Tensor  # [B, PIXELS, PIXELS, 3] uint8
    input_ids: torch.Tensor  # [B, T] int64
    labels: torch.Tensor  # [B, T] int64: the answer's tokens and the end of turn, the rest IGNORED
    lengths: torch.Tensor  # [B] int64, of prompts without answers
    cells: torch.Tensor  # [B, IMAGE_TOKENS, 3] int64: what the picture shows, see `sight.labels`

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
        return self.before + self.image + self._encode(f"<|vision_end|>{question}{ASKED}")

    def answer(self, text: str) -> list[int]:
        return [*self._encode(text), self.end]

    def batch(self, some: Sequence[Problem]) -> Batch:
        """Prompts without answers."""
        pictures, scenes = [one.picture() for one in some], [one.scene for one in some]
        return self._batch(pictures, scenes, [self.prompt(one.question) for one in some])

    def conversations(self, some: Sequence[Conversation]) -> Batch:
        """Pictures with questions and answers, cut to TOKENS; the answers are to be learned."""
        rows, all_wanted = [], []
        for one in some:
            row, wanted = self.before + self.image, [IGNORED] * (len(self.before) + IMAGE_TOKENS)
            for index, (question, text) in enumerate(one.turns):
                start = "<|vision_end|>" if index == 0 else "\n<|im_start|>user\n"
                asked, answer = self._encode(start + question + ASKED), self.answer(text)
                row, wanted = row + asked + answer, wanted + [IGNORED] * len(asked) + answer
            rows.append(row[:TOKENS])
            all_wanted.append(wanted[:TOKENS])
        pictures, scenes = [draw(one.scene, one.look, one.worn) for one in some], [one.scene for one in some]
        batch = self._batch(pictures, scenes, rows, TOKENS)
        for row, wanted in enumerate(all_wanted):
            batch.labels[row, : len(wanted)] = torch.tensor(wanted)
        return batch

    def _batch(
        self, pictures: list[Image.Image], scenes: list[Scene], rows: list[list[int]], length: int | None = None
    ) -> Batch:
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.full((len(rows), length or int(lengths.max())), self.pad)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        return Batch(
            torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])),
            ids, torch.full_like(ids, IGNORED), lengths, torch.tensor([labels(scene) for scene in scenes]),
        )  # fmt: skip

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


@dataclass(frozen=True)
class Conversation:
    """A picture and what is asked and answered about it, in turn."""

    scene: Scene
    look: int
    worn: bool
    turns: list[tuple[str, str]]


def conversation(seed: int, index: int) -> Conversation:
    """One picture of the training split, with the question that it was made for among others."""
    first, rng = problem(TRAIN, index), random.Random(f"conversation {seed} {index}")
    asked = [first, *(ask(first.scene, rng) for _ in range(TURNS - 1))]
    rng.shuffle(asked)
    return Conversation(first.scene, first.look, first.worn, [(one.question, solution(one, rng)) for one in asked])


class Corpus(IterableDataset):
    """Batches `first`, `first + 1`, ..., `until - 1` of conversations."""

    def __init__(self, prompts: Prompts, settings: Pretrain, first: int, until: int) -> None:
        self.prompts, self.settings, self.first, self.until = prompts, settings, first, until

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        mine, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        # The loader takes from its workers in turn, so the order of steps does not depend on how many there are.
        for step in range(self.first + mine, self.until, workers):
            batch = self.settings.batch
            indices = range(step * batch, (step + 1) * batch)
            yield self.prompts.conversations([conversation(self.settings.seed, index) for index in indices])


def loader(corpus: Corpus, workers: int, pin: bool) -> DataLoader:
    return DataLoader(
        corpus, batch_size=None, num_workers=workers, pin_memory=pin, prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
    )  # fmt: skip


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
