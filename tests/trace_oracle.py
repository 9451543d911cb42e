"""What a trace must say, by the oracle's three models."""

from __future__ import annotations

import torch
from PIL import Image

from cases import logprob_tolerance
from sgl_proxythinker.programs.reference_hf import Prompt, Reference


def assert_is_the_oracles(
    trace: dict[str, list],
    reference: Reference,
    prompt: Prompt,
    pictures: list[Image.Image],
    alpha: float,
    amateur_alpha: float | None = None,
    expert: str = "expert",
) -> None:
    """Each number of a trace is that of the same tokens under the oracle's models, in float64."""
    tokens, known = torch.tensor(trace["token_id"]), len(reference.tokenizer)
    rows = reference.logits(prompt, pictures, trace["token_id"][:-1], expert)
    rows = (*rows, reference.fuse(*rows, alpha, amateur_alpha))
    base, of_expert, amateur, fused = (row[:, :known].double().log_softmax(-1) for row in rows)
    weights = (alpha, alpha if amateur_alpha is None else amateur_alpha)
    for name, logprobs in zip(("base", "expert", "amateur", "fused"), (base, of_expert, amateur, fused), strict=True):
        wanted = logprobs.gather(1, tokens[:, None])[:, 0]
        _assert_near(trace[f"{name}_logprob"], wanted, name, weights if name == "fused" else ())
    for name, one in (("js_nats", of_expert), ("base_amateur_js_nats", base)):
        middle = (one.exp() + amateur.exp()).log() - torch.tensor(2.0).log()
        _assert_near(trace[name], sum((p.exp() * (p - middle)).sum(-1) for p in (one, amateur)) / 2, name)
    _assert_near(trace["base_entropy_nats"], -(base.exp() * base).sum(-1), "base_entropy_nats")
    # On a GPU, in 16 bits, another id may be as likely within the tolerance.
    top1 = torch.tensor(trace["base_top1_id"])
    _assert_near(base.gather(1, top1[:, None])[:, 0].tolist(), base.max(-1).values, "base_top1_id")
    assert trace["flipped"] == (tokens != top1).tolist()
    assert set(trace["alpha"]) == {alpha}


def _assert_near(told: list[float], wanted: torch.Tensor, name: str, weights: tuple[float, ...] = ()) -> None:
    worst = (torch.tensor(told, dtype=torch.float64) - wanted).abs().max().item()
    assert worst < logprob_tolerance(*weights), f"{name} is off by {worst:.5f} at worst"
