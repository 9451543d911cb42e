"""Prompts with pictures, and what it means that a server agrees with the oracle."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from programs.pictures import random_picture
from programs.reference_hf import Reference, ReferenceOutput
from servers import ON_GPU, Server, chat_messages

MAX_TOKENS = 16
# Served against oracle. On a GPU the models run in 16 bits: a token whose logit is closer than this to the runner-up's
# may differ, and everything after it too.
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
    options = {"alpha": case.alpha, "max_new_tokens": MAX_TOKENS, **options}
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


def logprob_tolerance(expert: float = 0.0, amateur: float | None = None) -> float:
    """How far a log probability of a fused row may be off: its models' errors are weighted as their logits are.

    Args:
        expert: the expert's weight, alpha.
        amateur: the amateur's; None: the same.
    """
    return ROUNDING * (1 + abs(expert) + abs(expert if amateur is None else amateur))


def close_call(expert: float = 0.0, amateur: float | None = None) -> float:
    """A gap of two fused logits that a device may turn round; the errors of its models are independent.

    Args:
        expert: the expert's weight, alpha.
        amateur: the amateur's; None: the same.
    """
    return CLOSE_CALL * math.hypot(1, expert, expert if amateur is None else amateur)


def sure_tokens(expected: ReferenceOutput, gap: float) -> int:
    """How many of the oracle's first tokens a server must give where it may turn `gap` round: on a CPU all of them."""
    return next((i for i, top2 in enumerate(expected.top2_gaps) if top2 < gap), len(expected.top2_gaps))


def assert_same_tokens(token_ids: list[int], expected: ReferenceOutput, alpha: float) -> int:
    """The oracle's tokens, all and no more; on a GPU up to one that differs, which must be a close call.

    Returns how many are the same.
    """
    if token_ids == expected.token_ids:
        return len(token_ids)
    pairs = zip(token_ids, expected.token_ids, strict=False)
    same = next((i for i, (token, wanted) in enumerate(pairs) if token != wanted), None)
    assert same is not None, f"{len(token_ids)} tokens for the oracle's {len(expected.token_ids)}, at alpha {alpha}"
    assert expected.top2_gaps[same] < close_call(alpha), f"token {same} of {token_ids} is another, at alpha {alpha}"
    return same


def assert_agrees(answer: dict, expected: ReferenceOutput, case: Case) -> None:
    """The same prompt tokens, the same tokens, and the same log probability for each."""
    choice, about = answer["choices"][0], f"{case.text[:30]!r} with {len(case.images)} images at alpha {case.alpha}"
    assert answer["usage"]["prompt_tokens"] == len(expected.input_ids), f"another prompt was read: {about}"
    # Where the amateur has a weight of its own it is 0 or 1.
    amateur = max(1.0, abs(case.alpha))
    sure = sure_tokens(expected, close_call(case.alpha, amateur))
    served = choice["logprobs"]["content"][:sure]
    if sure == len(expected.top2_gaps):
        assert choice["message"]["content"] == expected.text.replace("<|im_end|>", ""), (
            f"tokens differ: {about}; the oracle's closest call was {min(expected.top2_gaps):.5f}"
        )
    worst = max((abs(a["logprob"] - b) for a, b in zip(served, expected.logprobs, strict=False)), default=0.0)
    allowed = logprob_tolerance(case.alpha, amateur)
    assert worst < allowed, f"logprobs off by {worst:.5f} are not of the fused distribution: {about}"
