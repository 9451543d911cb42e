"""Prompts with pictures, and what it means that a server agrees with the oracle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from servers import ON_GPU, Server, chat_messages
from sgl_proxythinker.programs.pictures import random_picture
from sgl_proxythinker.programs.reference_hf import Reference, ReferenceOutput

MAX_TOKENS = 16
# Prompts of long answers that don't fit together. No two begin alike, and a chunk of 64 tokens holds few: all are
# begun, whatever the first are yet to write.
LONG_TEXTS = [f"{chr(ord('A') + place)} is a letter. Say it, and what else comes to your mind." for place in range(16)]
# Served against oracle. On a GPU the models run in 16 bits: an id whose logit is this close to the greatest may be
# chosen in its place.
CLOSE_CALL = 0.1 if ON_GPU else 0.0
# How far a model's log probability may be off by what its device rounds. The oracle itself in float16 is 0.0125 (root
# mean square) away from the oracle in float32, 0.06 at most at 960 drawn tokens of each model and 0.13 at any id.
ROUNDING = 0.1 if ON_GPU else 1e-4


@dataclass(frozen=True)
class Case:
    """One chat request."""

    text: str
    images: tuple[Image.Image, ...] = ()
    alpha: float = 0.5
    amateur_alpha: float | None = None

    def messages(self) -> list[dict]:
        return chat_messages(self.text, list(self.images))


def mixed_cases() -> list[Case]:
    """Image counts 0 to 3, sizes from 2x2 to 8x4 image tokens, prompts from a word to several chunks, five alphas."""
    long_text = "Look at every picture, count what you see, and say it in order. " * 4
    one, wide, tall = random_picture(1, 84, 84), random_picture(2, 224, 112), random_picture(3, 56, 140)
    prompts = [
        ("Hi", ()),
        (long_text, ()),
        ("What is in the picture?", (one,)),
        ("What is in the picture?", (wide,)),
        ("Compare the two pictures.", (one, tall)),
        ("Compare the two pictures.", (tall, one)),
        (long_text, (one, wide, tall)),
    ]
    return [
        Case(text, images, alpha) for text, images in prompts for alpha in ((0.0, 0.5, 1.5) if images else (-1.0, 2.0))
    ]


def oracle_answer(reference: Reference, case: Case, **options) -> ReferenceOutput:
    options = {"alpha": case.alpha, "amateur_alpha": case.amateur_alpha, "max_new_tokens": MAX_TOKENS, **options}
    return reference.generate(case.messages(), list(case.images), **options)


def ask_all(server: Server, cases: list[Case], **options) -> list[dict]:
    """All at once, so that rows of different lengths and strengths share batches."""
    with ThreadPoolExecutor(len(cases)) as pool:
        return list(
            pool.map(
                lambda case: server.chat(case.messages(), case.alpha, max_tokens=MAX_TOKENS, logprobs=True, **options),
                cases,
            )
        )


def output_ids(choice: dict) -> list[int]:
    """The tokens of a chat's choice, of a request for logprobs."""
    return [token_id for _, token_id, _ in choice["meta_info"]["output_token_logprobs"]]


def logprob_tolerance(expert: float = 0.0, amateur: float | None = None) -> float:
    """How far a log probability of a fused row may be off: its models' errors are weighted as their logits are.

    Args:
        expert: the expert's weight, alpha.
        amateur: the amateur's; None: the same.
    """
    return ROUNDING * (1 + abs(expert) + abs(expert if amateur is None else amateur))


def close_call(expert: float = 0.0, amateur: float | None = None) -> float:
    """How far below the greatest a fused logit may be, and its id be chosen; the errors of the models are independent.

    Args:
        expert: the expert's weight, alpha.
        amateur: the amateur's; None: the same.
    """
    return CLOSE_CALL * math.hypot(1, expert, expert if amateur is None else amateur)


def assert_same_tokens(
    token_ids: list[int],
    expected: ReferenceOutput,
    reference: Reference,
    alpha: float,
    amateur_alpha: float | None = None,
    images: Sequence[Image.Image] = (),
    rounding: float = 1.0,
    **steered: Any,
) -> torch.Tensor:
    """The oracle's tokens; on a GPU each one what the oracle may choose after those before it, up to a close call.

    Args:
        rounding: how many times what a dense model's device rounds.
        steered: more of what the oracle is to be asked: `expert`, `experts`.

    Returns:
        [T, V] float32, the oracle's fused rows after the tokens before each one of `token_ids`.
    """
    about = f"at alpha {alpha}: {token_ids} where the oracle chose {expected.token_ids}"
    if not ON_GPU or token_ids[: len(expected.token_ids)] == expected.token_ids:
        assert token_ids == expected.token_ids, about
    assert len(token_ids) >= len(expected.token_ids) or token_ids[-1] in reference.end_ids, f"too few tokens {about}"
    prompt = expected.input_ids
    rows = reference.fused_logits(
        prompt, list(images), token_ids[:-1], alpha=alpha, amateur_alpha=amateur_alpha, **steered
    )
    if ON_GPU:
        below = rows.max(dim=-1).values - rows[range(len(token_ids)), token_ids]
        step = int(below.argmax())
        gap = below[step].item()
        assert gap <= rounding * close_call(alpha, amateur_alpha), (
            f"token {step} is {gap:.5f} below the greatest {about}"
        )
    return rows


def assert_agrees(
    answer: dict, expected: ReferenceOutput, case: Case, reference: Reference, rounding: float = 1.0, **steered: Any
) -> None:
    """The same prompt tokens, the same tokens, and the same log probability for each; `case` may be a later turn.

    `rounding`: how many times what a dense model's device rounds.
    """
    choice, about = answer["choices"][0], f"{case.text[:30]!r} with {len(case.images)} images at alpha {case.alpha}"
    assert answer["usage"]["prompt_tokens"] == len(expected.input_ids), f"another prompt was read: {about}"
    token_ids = output_ids(choice)
    strengths = (case.alpha, case.amateur_alpha)
    rows = assert_same_tokens(token_ids, expected, reference, *strengths, case.images, rounding, **steered)
    if token_ids == expected.token_ids:
        assert choice["message"]["content"] == expected.text.replace("<|im_end|>", ""), about
    wanted = rows.log_softmax(dim=-1)[range(len(token_ids)), token_ids].tolist()
    served = [token["logprob"] for token in choice["logprobs"]["content"]]
    worst = max(abs(a - b) for a, b in zip(served, wanted, strict=True))
    assert worst < rounding * logprob_tolerance(*strengths), (
        f"logprobs off by {worst:.5f} are not of the fused row: {about}"
    )
