"""The formula, on `[batch, vocab]` logits."""

from __future__ import annotations

import torch


def fuse_logits(
    base: torch.Tensor,
    expert: torch.Tensor,
    amateur: torch.Tensor,
    expert_weight: torch.Tensor,
    amateur_weight: torch.Tensor,
    vocab_size: int,
    *,
    one_alpha: bool = False,
    all_guided: bool = False,
) -> torch.Tensor:
    """Steer the base model by what fine-tuning changed in the small one.

        fused = base + expert_weight * expert - amateur_weight * amateur

    With one alpha for both it is ProxyThinker's base + alpha * (expert - amateur) (ICLR 2026, eq. 1).

    Args:
        base: [B, V] raw logits, any float dtype, V >= vocab_size. Read only.
        expert: [B, W] raw logits, W >= vocab_size. Read only.
        amateur: [B, X] raw logits, X >= vocab_size. Read only.
        expert_weight: [B] float32. A row with both weights 0 is the base's row, whatever the proxies say.
        amateur_weight: [B] float32.
        vocab_size: ids that the three tokenizers share. Columns past it are lm_head padding.
        one_alpha: the caller knows that the two weights are equal in every row: one pass less.
        all_guided: the caller knows that no row has both weights 0: one pass less.

    Returns:
        [B, V] float32, a new tensor. Columns past `vocab_size` are -inf, so that they can't be sampled.

    Call it before penalties, grammar masks and temperature: they would be applied once per model, and a -inf on both
    proxies would become NaN here.
    """
    expert_weight, amateur_weight = expert_weight[:, None], amateur_weight[:, None]
    fused = torch.empty_like(base, dtype=torch.float32)
    fused[:, vocab_size:] = -torch.inf
    base, expert, amateur = (logits[:, :vocab_size].float() for logits in (base, expert, amateur))
    # Each line is one pass over [B, V], in place; at batch 64 that is a tenth of a percent of a step.
    known = fused[:, :vocab_size]
    # The difference first: equal proxies cancel to exactly 0 at any alpha, and rounding stays relative to it.
    torch.sub(expert, amateur, out=known)
    torch.addcmul(base, known, expert_weight, out=known)
    if not one_alpha:
        known.addcmul_(amateur, expert_weight - amateur_weight)
    if not all_guided:
        # 0 * inf is NaN: a broken proxy must not reach the rows that don't ask for it.
        is_base_alone = (expert_weight == 0) & (amateur_weight == 0)
        torch.where(is_base_alone, base, known, out=known)
    return fused


def neutralize_broken_rows_(fused: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """Make rows that hold NaN or infinity safe to sample from, and say which rows are sound.

    Sampling from a NaN row is a device-side assertion that takes every request down, so such a row becomes uniform
    here and its request is ended with an error when the step's result reaches the host.

    Args:
        fused: [B, V] float32, changed in place.
        vocab_size: columns that count; those past it are -inf by design.

    Returns:
        [B] bool, True where the row was finite.
    """
    known = fused[:, :vocab_size]
    # The largest magnitude is NaN or infinite where any element is: one pass, where isfinite().all() takes four.
    sound = torch.linalg.vector_norm(known, ord=torch.inf, dim=-1).isfinite()
    known.masked_fill_(~sound[:, None], 0.0)
    return sound
