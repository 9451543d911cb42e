"""An explanation written by hand: what a page must show, and what must not break it."""

from __future__ import annotations

import math
import re

from PIL import Image, ImageDraw

from sgl_proxythinker.programs.explain import picture_url
from sgl_proxythinker.programs.explanation import Answer, Explanation, Token

# Markup, a character in parts, a character of four bytes, right to left, line ends, a word longer than a phone is wide.
HOSTILE = ["<script>alert(1)</script>", "", "🙂", " שלום", "\n\n", ' "&amp;', " x" + "y" * 90, "<|im_end|>"]

PLAIN = "The picture shows a red circle, a blue square and a green triangle. So there are four shapes.<|im_end|>"
GUIDED = (
    "Let me look again.\nThe picture shows a red circle on the left, a blue rectangle at the top right, and a green "
    "triangle below it.\n\nWait, is the circle larger than the triangle? It is about 90 pixels wide, and the triangle "
    "75. So there are three shapes, and the largest one is the circle.<|im_end|>"
)
FLIPS = {
    "Let": "The", " again": " at", " on": ",", " rectangle": " square", " Wait": "So", "Wait": "So",
    " is": " the", " three": " four", " about": " the", " and": ".",
}  # fmt: skip


def three_shapes() -> Image.Image:
    picture = Image.new("RGB", (224, 168), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((20, 30, 110, 120), fill="crimson")
    draw.rectangle((130, 20, 200, 70), fill="royalblue")
    draw.polygon([(165, 90), (130, 150), (205, 150)], fill="seagreen")
    return picture


def example() -> Explanation:
    """Three alphas, from the base alone to a strong pull."""
    return Explanation(
        question="How many shapes are in the picture, and which of them is the largest?",
        pictures=[picture_url(three_shapes())],
        base="Qwen/Qwen2.5-VL-32B-Instruct",
        expert="TIGER-Lab/VL-Rethinker-7B",
        amateur="Qwen/Qwen2.5-VL-7B-Instruct",
        answers=[_answer(0.0, PLAIN), _answer(0.5, GUIDED), _answer(1.0, GUIDED, HOSTILE)],
    )


def _answer(alpha: float, text: str, more: list[str] = ()) -> Answer:
    pieces = [*_words(text), *more]
    return Answer(alpha=alpha, tokens=[_token(place, piece, alpha) for place, piece in enumerate(pieces)])


def _words(text: str) -> list[str]:
    """Words with the blank before them, line ends and the end of the turn: as a tokenizer would."""
    return re.findall(r" ?[^\s<]+|\s|<\|im_end\|>", text)


def _token(place: int, text: str, alpha: float) -> Token:
    """Numbers that wave along the answer, the same at every run."""
    flipped = alpha > 0 and text in FLIPS
    wave = math.sin(1.7 * place) * math.sin(0.37 * place + 1)
    base = -0.15 - 1.2 * abs(wave) - (2.5 if flipped else 0)
    pull = alpha * (2.8 if flipped else 0.9 * wave**3 + 0.1)
    return Token(
        text=text,
        base_text=FLIPS[text] if flipped else text,
        flipped=flipped,
        base_logprob=base,
        expert_logprob=base / 2,
        amateur_logprob=base * 1.5,
        fused_logprob=min(-0.01, base + pull) if alpha else base,
        js_nats=min(0.6, 0.02 + 0.2 * abs(wave) + (0.25 if flipped else 0)),
        alpha=alpha * (1 if flipped else 0.25),
        base_entropy_nats=0.1 + 2 * abs(wave),
    )
