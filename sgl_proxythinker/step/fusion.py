"""The formula, on the logits of a step's rows."""

from __future__ import annotations

import torch

from sgl_proxythinker.step.logits import FusedLogits, ShardedLogits


def fuse_logits(
    base: ShardedLogits,
    expert: ShardedLogits | None,
    amateur: ShardedLogits | None,
    expert_weight: torch.Tensor,
    amateur_weight: torch.Tensor,
    proxy_rows: torch.Tensor | None,
    vocab_size: int,
    width: int,
) -> FusedLogits:
    """Steer the base model by what fine-tuning changed in the small one.

        fused = base + expert_weight * expert - amateur_weight * amateur

    With one alpha for both it is ProxyThinker's base + alpha * (expert - amateur) (ICLR 2026, eq. 1).

    Args:
        base: row b is the base's row b; it may have more rows than B. Read only.
        expert: None, as the amateur, where the proxies ran for no row: every row is the base's. Read only.
        amateur: as many rows as the expert. The three may differ in dtype, in shards and in padding. Read only.
        expert_weight: [B] float32. A row with both weights 0 is the base's row, whatever the proxies say.
        amateur_weight: [B] float32.
        proxy_rows: [B] int64, the row of expert and amateur that belongs to row b of the base; -1 where the proxies
            did not run for it, which is the base's row then. None: row b is row b. Read only.
        vocab_size: ids that the three tokenizers share. Columns past it are lm_head padding.
        width: columns of the result, at least `vocab_size`.

    Returns:
        [B, width] float32 and [B] bool, new tensors on the device of the base. Columns past `vocab_size` are -inf, so
        that they can't be sampled. Sampling from a NaN row is a device-side assertion that takes every request down,
        so a row with a value that is NaN or infinite becomes uniform and is not `sound`; its request is ended with an
        error when the step's result reaches the host.

    Raises:
        ValueError: a model has fewer columns than `vocab_size` or fewer rows than B, its last dimension is strided,
            `width` is less than `vocab_size`, or one proxy came without the other.

    Call it before penalties, grammar masks and temperature: they would be applied once per model, and a -inf on both
    proxies would become NaN here. It does not wait for the device. On CUDA it runs a kernel, whose specification, and
    whose stand-in on a CPU, is `fuse_in_torch`.
    """
    _check(base, expert, amateur, len(expert_weight), proxy_rows, vocab_size, width)
    if base.shards.is_cuda:
        # Not before it is needed: a machine without a GPU may lack triton.
        from sgl_proxythinker.step.fusion_kernel import fuse_by_kernel as fuse
    else:
        fuse = fuse_in_torch
    return fuse(base, expert, amateur, expert_weight, amateur_weight, proxy_rows, vocab_size, width)


def fuse_in_torch(
    base: ShardedLogits,
    expert: ShardedLogits | None,
    amateur: ShardedLogits | None,
    expert_weight: torch.Tensor,
    amateur_weight: torch.Tensor,
    proxy_rows: torch.Tensor | None,
    vocab_size: int,
    width: int,
) -> FusedLogits:
    """What `fuse_logits` means, on any device; takes and returns the same, and checks nothing."""
    every_row = torch.arange(len(expert_weight), device=base.shards.device)
    known = base.rows(every_row, vocab_size).float()
    if expert is not None:
        proxy_rows = every_row if proxy_rows is None else proxy_rows
        is_guided = (proxy_rows >= 0) & ((expert_weight != 0) | (amateur_weight != 0))
        # A row that the proxies did not run for takes another's here, and is not guided.
        expert_row, amateur_row = (
            proxy.rows(proxy_rows.clamp(min=0), vocab_size).float() for proxy in (expert, amateur) if proxy is not None
        )
        expert_weight, amateur_weight = expert_weight[:, None], amateur_weight[:, None]
        # The difference first: equal proxies cancel to exactly 0 at any alpha, and rounding stays relative to it.
        guided = known + (expert_row - amateur_row) * expert_weight
        more = guided + amateur_row * (expert_weight - amateur_weight)
        guided = torch.where(expert_weight == amateur_weight, guided, more)
        # Chosen, not multiplied by 0: 0 * inf is NaN, and a broken proxy must not reach rows that don't ask for it.
        known = torch.where(is_guided[:, None], guided, known)
    sound = known.isfinite().all(dim=-1)
    fused = torch.full((len(known), width), -torch.inf, dtype=torch.float32, device=known.device)
    fused[:, :vocab_size] = torch.where(sound[:, None], known, 0.0)
    return FusedLogits(fused, sound)


def _check(
    base: ShardedLogits,
    expert: ShardedLogits | None,
    amateur: ShardedLogits | None,
    batch: int,
    proxy_rows: torch.Tensor | None,
    vocab_size: int,
    width: int,
) -> None:
    """Raise where the kernel would read or write outside of a tensor; all of it is known on the host."""
    if width < vocab_size:
        raise ValueError(f"a fused row of {width} columns can't hold the {vocab_size} ids of the tokenizer")
    if (expert is None) != (amateur is None):
        raise ValueError("expert and amateur guide together: both or neither, not one of them alone")
    proxy_batch = batch if proxy_rows is None else 0
    for name, logits, least_rows in (
        ("base", base, batch),
        ("expert", expert, proxy_batch),
        ("amateur", amateur, proxy_batch),
    ):
        if logits is None:
            continue
        shards, rows, columns = logits.shards.shape
        if shards * columns < vocab_size or rows < least_rows:
            raise ValueError(
                f"the {name}'s logits are {rows} rows of {shards} x {columns} columns, "
                f"too few for {least_rows} rows of {vocab_size} ids"
            )
        if columns > 1 and logits.shards.stride(-1) != 1:
            raise ValueError(f"the {name}'s columns are {logits.shards.stride(-1)} elements apart, not side by side")
