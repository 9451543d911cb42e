"""The formula, on the logits of a step's rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sgl_proxythinker.step.logits import FusedLogits, ShardedLogits, WeightedPair


def fuse_logits(
    base: ShardedLogits, pairs: Sequence[WeightedPair], batch: int, vocab_size: int, width: int
) -> FusedLogits:
    """Steer the base model by what fine-tuning changed in the small ones.

        fused = base + sum over pairs of (plus_weight * plus - minus_weight * minus)

    With one pair, the expert and the amateur, and one alpha for both it is ProxyThinker's
    base + alpha * (expert - amateur) (ICLR 2026, eq. 1). Where a row has a clip, plus - minus is cut to [-clip, clip].

    Args:
        base: row n is the base's row n; it may have more rows than N. Read only.
        pairs: the C pairs, each with its weights for the N rows. None: every row is the base's. The models may differ
            in dtype, in shards and in padding. Read only.
        batch: N.
        vocab_size: ids that the tokenizers share. Columns past it are lm_head padding.
        width: columns of the result, at least `vocab_size`.

    Returns:
        [N, width] float32 and [N] bool, new tensors on the device of the base. Columns past `vocab_size` are -inf, so
        that they can't be sampled. Sampling from a NaN row is a device-side assertion that takes every request down,
        so a row with a value that is NaN or infinite becomes uniform and is not `sound`; its request is ended with an
        error when the step's result reaches the host.

    Raises:
        ValueError: a model has fewer columns than `vocab_size` or fewer rows than N, its last dimension is strided,
            or `width` is less than `vocab_size`.

    Call it before penalties, grammar masks and temperature: they would be applied once per model, and a -inf on both
    models of a pair would become NaN here. It does not wait for the device. On CUDA it runs a kernel, whose
    specification, and whose stand-in on a CPU, is `fuse_in_torch`.
    """
    _check(base, pairs, batch, vocab_size, width)
    if base.shards.is_cuda:
        # Not before it is needed: a machine without a GPU may lack triton.
        from sgl_proxythinker.step.fusion_kernel import fuse_by_kernel as fuse
    else:
        fuse = fuse_in_torch
    return fuse(base, pairs, batch, vocab_size, width)


def fuse_in_torch(
    base: ShardedLogits, pairs: Sequence[WeightedPair], batch: int, vocab_size: int, width: int
) -> FusedLogits:
    """What `fuse_logits` means, on any device; takes and returns the same, and checks nothing."""
    every_row = torch.arange(batch, device=base.shards.device)
    known = base.rows(every_row, vocab_size).float()
    for pair in pairs:
        known = _steered(known, pair, every_row, vocab_size)
    sound = known.isfinite().all(dim=-1)
    fused = torch.full((batch, width), -torch.inf, dtype=torch.float32, device=known.device)
    fused[:, :vocab_size] = torch.where(sound[:, None], known, 0.0)
    return FusedLogits(fused, sound)


def _steered(known: torch.Tensor, pair: WeightedPair, every_row: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """[N, vocab_size]: `known` and what a pair adds to it."""
    plus_rows = every_row if pair.plus_rows is None else pair.plus_rows
    minus_rows = every_row if pair.minus_rows is None else pair.minus_rows
    plus_weight, minus_weight = pair.weights
    is_steered = (plus_rows >= 0) & (minus_rows >= 0) & ((plus_weight != 0) | (minus_weight != 0))
    # A row that a model did not run for takes another's here, and is not steered.
    plus = pair.plus.rows(plus_rows.clamp(min=0), vocab_size).float()
    minus = pair.minus.rows(minus_rows.clamp(min=0), vocab_size).float()
    plus_weight, minus_weight = plus_weight[:, None], minus_weight[:, None]
    # The difference first: equal models cancel to exactly 0 at any weight, and rounding stays relative to it.
    difference = plus - minus
    if pair.clips is not None:
        # What is infinite stays so: it is a damaged model's, which its request is to be told of.
        cut = difference.clamp(-pair.clips[:, None], pair.clips[:, None])
        difference = torch.where(difference.isfinite(), cut, difference)
    steered = known + difference * plus_weight
    more = steered + minus * (plus_weight - minus_weight)
    steered = torch.where(plus_weight == minus_weight, steered, more)
    # Chosen, not multiplied by 0: 0 * inf is NaN, and a broken model must not reach rows that don't ask for it.
    return torch.where(is_steered[:, None], steered, known)


def _check(base: ShardedLogits, pairs: Sequence[WeightedPair], batch: int, vocab_size: int, width: int) -> None:
    """Raise where the kernel would read or write outside of a tensor; all of it is known on the host."""
    if width < vocab_size:
        raise ValueError(f"a fused row of {width} columns can't hold the {vocab_size} ids of the tokenizer")
    _check_model("base", base, batch, vocab_size)
    for pair in pairs:
        if pair.weights.shape != (2, batch):
            raise ValueError(f"the weights of a pair are {tuple(pair.weights.shape)}, not 2 for each of {batch} rows")
        if pair.clips is not None and pair.clips.shape != (batch,):
            raise ValueError(f"the clips of a pair are {tuple(pair.clips.shape)}, not one for each of {batch} rows")
        _check_model("first model of a pair", pair.plus, batch if pair.plus_rows is None else 0, vocab_size)
        _check_model("second model of a pair", pair.minus, batch if pair.minus_rows is None else 0, vocab_size)


def _check_model(name: str, logits: ShardedLogits, least_rows: int, vocab_size: int) -> None:
    shards, rows, columns = logits.shards.shape
    if shards * columns < vocab_size or rows < least_rows:
        raise ValueError(
            f"the logits of the {name} are {rows} rows of {shards} x {columns} columns, "
            f"too few for {least_rows} rows of {vocab_size} ids"
        )
    if columns > 1 and logits.shards.stride(-1) != 1:
        raise ValueError(f"the columns of the {name} are {logits.shards.stride(-1)} elements apart, not side by side")
