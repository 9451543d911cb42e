"""The strengths of a pair's laws as one kernel on a GPU. Its specification is in `law_strengths`; nothing else imports
this module.

A program has a row to itself and reads what the row's law asks for: nothing of the models for a schedule, the base's
row once for an entropy, the rows of all three twice for a divergence. The second time they lie in the GPU's cache.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import triton
import triton.language as tl

from sgl_proxythinker.laws import MAX_POINTS
from sgl_proxythinker.roles import BASE, Role
from sgl_proxythinker.step.law_rows import NUMBERS, LawRows
from sgl_proxythinker.step.logits import ShardedLogits
from sgl_proxythinker.step.sharded_load import as_arguments, load_known
from sgl_proxythinker.step.statistics_kernel import jensen_shannon_terms

# Fewer rows have a law than a GPU has multiprocessors: as many columns at a time as the registers of one hold.
_BLOCK = 8192
_WARPS = 16
_PLACES = triton.next_power_of_2(MAX_POINTS)


def law_weights_by_kernel(
    laws: LawRows,
    weights: torch.Tensor,
    lengths: torch.Tensor,
    logits: Mapping[Role, ShardedLogits],
    vocab_size: int,
    past_marker: torch.Tensor | None = None,
) -> torch.Tensor:
    """`law_strengths.law_weights` for tensors of one CUDA device, on its current stream."""
    expert, amateur = laws.pair
    made = torch.empty_like(weights, memory_format=torch.contiguous_format)
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device_of(made):
        _law_weights[(weights.shape[1],)](
            made,
            weights.contiguous(),
            # Of one type, whatever a batch has: another would be compiled while requests wait.
            lengths.long().contiguous(),
            None if past_marker is None else past_marker.contiguous(),
            laws.numbers,
            laws.points,
            *laws.model_rows,
            *as_arguments(logits[BASE]),
            *as_arguments(logits[expert]),
            *as_arguments(logits[amateur]),
            VOCAB_SIZE=vocab_size,
            NUMBERS=NUMBERS,
            PLACES=_PLACES,
            BLOCK=_BLOCK,
            num_warps=_WARPS,
        )
    return made


@triton.jit
def _sums_of_row(
    logits,
    shard_stride,
    row_stride,
    SHARDS: tl.constexpr,
    WIDTH: tl.constexpr,
    row,
    VOCAB_SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A row's logsumexp, as its largest logit and log(sum of exp(x - it)), and its entropy; in one pass.

    NaN where one of its logits is NaN or infinity, or all of them are -infinity.
    """
    # Of each column of a block the largest logit so far, the mass beside it and its moment. Not from -infinity: less
    # itself it is NaN.
    highest = tl.full([BLOCK], -3.4028234663852886e38, tl.float32)
    masses = tl.zeros([BLOCK], tl.float32)
    moments = tl.zeros([BLOCK], tl.float32)
    for start in range(0, VOCAB_SIZE, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        values = load_known(logits, shard_stride, row_stride, SHARDS, WIDTH, row, columns, VOCAB_SIZE)
        step = values - highest
        is_higher = step > 0
        # One exponential for both: what there was shrinks, or what comes is smaller.
        ratio = tl.exp(-tl.abs(step))
        # Not 0 * infinity.
        scaled = tl.where(ratio == 0, 0.0, tl.where(is_higher, moments - step * masses, step) * ratio)
        moments = tl.where(is_higher, scaled, moments + scaled)
        masses = tl.where(is_higher, masses * ratio + 1, masses + ratio)
        highest = tl.where(is_higher, values, highest)
    largest = tl.max(highest, 0)
    step = largest - highest
    ratio = tl.exp(-step)
    mass = tl.sum(masses * ratio, 0)
    moment = tl.sum(tl.where(ratio == 0, 0.0, (moments - step * masses) * ratio), 0)
    log_mass = tl.log(mass)
    return largest, log_mass, log_mass - moment / mass


@triton.jit
def _interpolated(law, points, generated, NUMBERS: tl.constexpr, PLACES: tl.constexpr, otherwise):
    """The strength of a row's schedule, `otherwise` where it has none."""
    tokens, strengths = law + NUMBERS, law + NUMBERS + points
    places = tl.arange(0, PLACES)
    all_tokens = tl.load(tokens + places, mask=places < points, other=float("nan"))
    known = tl.sum((all_tokens == all_tokens).to(tl.int32), 0)
    strength = otherwise
    if known > 0:
        behind = tl.sum((all_tokens <= generated).to(tl.int32), 0)
        left, right = tl.maximum(behind - 1, 0), tl.minimum(behind, known - 1)
        x0, x1 = tl.load(tokens + left), tl.load(tokens + right)
        y0, y1 = tl.load(strengths + left), tl.load(strengths + right)
        share = tl.where(x1 > x0, tl.div_rn(generated - x0, x1 - x0), 0.0)
        strength = y0 + (y1 - y0) * tl.minimum(tl.maximum(share, 0.0), 1.0)
    return strength, known > 0


@triton.jit(
    do_not_specialize=["points"],
    do_not_specialize_on_alignment=[
        "made", "weights", "lengths", "past_marker", "numbers", "plus_rows", "minus_rows",
    ],
)  # fmt: skip
def _law_weights(
    made,
    weights,
    lengths,
    past_marker,
    numbers,
    points,
    plus_rows,
    minus_rows,
    base,
    base_shard_stride,
    base_row_stride,
    BASE_SHARDS: tl.constexpr,
    BASE_WIDTH: tl.constexpr,
    plus,
    plus_shard_stride,
    plus_row_stride,
    PLUS_SHARDS: tl.constexpr,
    PLUS_WIDTH: tl.constexpr,
    minus,
    minus_shard_stride,
    minus_row_stride,
    MINUS_SHARDS: tl.constexpr,
    MINUS_WIDTH: tl.constexpr,
    VOCAB_SIZE: tl.constexpr,
    NUMBERS: tl.constexpr,
    PLACES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write both weights of row program_id(0), which are the constant ones where it has no law."""
    row = tl.program_id(0).to(tl.int64)
    rows = tl.num_programs(0)
    of_plus, of_minus = tl.load(weights + row), tl.load(weights + rows + row)
    # As `LawRows.numbers` has them; what is NaN is not asked for.
    law = numbers + row * (NUMBERS + 2 * points)
    prompt_tokens = tl.load(law).to(tl.int64)
    warmup, above, after = tl.load(law + 4), tl.load(law + 5), tl.load(law + 6)
    generated = tl.maximum(tl.load(lengths + row) - prompt_tokens, 0).to(tl.float32)
    strength, has_schedule = _interpolated(law, points, generated, NUMBERS, PLACES, of_plus)
    of_plus, of_minus = tl.where(has_schedule, strength, of_plus), tl.where(has_schedule, strength, of_minus)
    if past_marker is not None:
        is_past = (after == after) & (tl.load(past_marker + row) != 0)
        of_plus, of_minus = tl.where(is_past, after, of_plus), tl.where(is_past, after, of_minus)
    diverges, bounded = generated >= warmup, above == above
    if diverges | bounded:
        base_largest, base_log_mass, entropy = _sums_of_row(
            base, base_shard_stride, base_row_stride, BASE_SHARDS, BASE_WIDTH, row, VOCAB_SIZE, BLOCK
        )
        if bounded & ~(entropy > above):
            of_plus = 0.0
            of_minus = 0.0
        elif diverges:
            plus_row, minus_row = tl.load(plus_rows + row), tl.load(minus_rows + row)
            plus_largest, plus_log_mass, _ = _sums_of_row(
                plus, plus_shard_stride, plus_row_stride, PLUS_SHARDS, PLUS_WIDTH, plus_row, VOCAB_SIZE, BLOCK
            )
            minus_largest, minus_log_mass, _ = _sums_of_row(
                minus, minus_shard_stride, minus_row_stride, MINUS_SHARDS, MINUS_WIDTH, minus_row, VOCAB_SIZE, BLOCK
            )
            of_small = tl.zeros([BLOCK], tl.float32)
            of_untuned = tl.zeros([BLOCK], tl.float32)
            for start in range(0, VOCAB_SIZE, BLOCK):
                columns = start + tl.arange(0, BLOCK)
                says_base = load_known(
                    base, base_shard_stride, base_row_stride, BASE_SHARDS, BASE_WIDTH, row, columns, VOCAB_SIZE
                )
                says_plus = load_known(
                    plus, plus_shard_stride, plus_row_stride, PLUS_SHARDS, PLUS_WIDTH, plus_row, columns, VOCAB_SIZE
                )
                says_minus = load_known(
                    minus, minus_shard_stride, minus_row_stride, MINUS_SHARDS, MINUS_WIDTH, minus_row, columns,
                    VOCAB_SIZE,
                )  # fmt: skip
                says_base = says_base - base_largest - base_log_mass
                says_plus = says_plus - plus_largest - plus_log_mass
                says_minus = says_minus - minus_largest - minus_log_mass
                of_small += jensen_shannon_terms(says_plus, says_minus)
                of_untuned += jensen_shannon_terms(says_base, says_minus)
            small, untuned = tl.sum(of_small, 0) / 2, tl.sum(of_untuned, 0) / 2
            # Of nearly equal distributions rounding makes it a hair negative. NaN stays what it is here and below.
            less = tl.where(small < 0, 0.0, small) - tl.where(untuned < 0, 0.0, untuned)
            scale, low, high = tl.load(law + 1), tl.load(law + 2), tl.load(law + 3)
            of_plus = scale * tl.where(less < low, low, tl.where(less > high, high, less))
            of_minus = of_plus
    tl.store(made + row, of_plus)
    tl.store(made + rows + row, of_minus)
