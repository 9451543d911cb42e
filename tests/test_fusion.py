"""Laws of the formula; each docstring names the mutant that the law kills.

Each law is asked of the specification in torch and of the kernel. Without a GPU the kernel runs in triton's
interpreter, in a process of its own: what tells triton to interpret has to be set before it is imported, and would
reach every test and server of this process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch

from interpreted import assert_kernel_obeys
from sgl_proxythinker.step.fusion import fuse_in_torch, fuse_logits
from sgl_proxythinker.step.logits import FusedLogits, ShardedLogits, WeightedPair

V = 50  # ids that the tokenizer knows
WIDTH = 64
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_gpu = pytest.mark.skipif(not CUDA, reason="needs a GPU")

Fuse = Callable[..., FusedLogits]


@pytest.fixture(params=["specification", "kernel"] if CUDA or INTERPRETED else ["specification"])
def fuse_pairs(request) -> Fuse:
    """`fuse_logits`, of any number of pairs."""
    return fuse_in_torch if request.param == "specification" else kernel()


@pytest.fixture
def fuse(fuse_pairs) -> Fuse:
    """`fuse_logits` of one pair, as `of_triple` takes it."""
    return partial(of_triple, fuse_pairs)


def of_triple(fuse: Fuse, base, expert, amateur, expert_weight, amateur_weight, proxy_rows, vocab_size, width):
    """Base and one pair, whose models ran for the same rows; None in place of both: no pair."""
    table = torch.stack([expert_weight, amateur_weight])
    pairs = [] if expert is None else [WeightedPair(expert, amateur, table, proxy_rows, proxy_rows)]
    return fuse(base, pairs, len(expert_weight), vocab_size, width)


def kernel() -> Fuse:
    from sgl_proxythinker.step.fusion_kernel import fuse_by_kernel

    return fuse_by_kernel


def weights(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=DEVICE)


def rows(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64, device=DEVICE)


def random_rows(seed: int, batch: int, vocab_size: int = V, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (5 * torch.randn(batch, vocab_size, generator=generator)).to(dtype).to(DEVICE)


def sharded(known: torch.Tensor, shards: int, width: int, *, strided: bool = False) -> ShardedLogits:
    """`known` [R, V] in `shards` of `width` columns, with NaN where no token is."""
    padding = known.new_full((len(known), shards * width - known.shape[1]), torch.nan)
    by_row = torch.cat([known, padding], dim=1).unflatten(1, (shards, width))
    # As a view, shards lie between rows; as sent by ranks, rows lie within shards.
    return ShardedLogits(by_row.transpose(0, 1) if strided else by_row.transpose(0, 1).contiguous())


@pytest.fixture
def logits() -> tuple[ShardedLogits, ShardedLogits, ShardedLogits]:
    """Base, expert and amateur of 3 rows, heads of three widths."""
    return tuple(sharded(random_rows(seed, 3), 1, width) for seed, width in enumerate((64, 56, 52)))


def known(logits: ShardedLogits) -> torch.Tensor:
    return logits.rows(torch.arange(logits.shards.shape[1], device=DEVICE), V)


def test_it_is_the_formula(fuse, logits):
    """Kills a swapped sign, swapped proxies, a forgotten weight: checked against float64."""
    base, expert, amateur = (known(model).double() for model in logits)
    expert_weight, amateur_weight = weights(0.5, 1.5, -2.0), weights(0.5, 0.0, 3.0)
    wanted = base + expert_weight[:, None] * expert - amateur_weight[:, None] * amateur
    fused, sound = fuse(*logits, expert_weight, amateur_weight, None, V, WIDTH)
    torch.testing.assert_close(fused[:, :V].double(), wanted, rtol=1e-5, atol=1e-4)
    assert fused.dtype == torch.float32 and fused.is_contiguous() and sound.tolist() == [True] * 3


def test_a_clip_cuts_the_difference_of_its_own_row(fuse_pairs, logits):
    """Kills: the weighted difference cut, one row's clip for all, one side cut only."""
    base, expert, amateur = (known(model).double() for model in logits)
    weight, clips = weights(1.5, -2.0, 1.5), weights(2.0, 0.5, torch.inf)
    cut = (expert - amateur).clamp(-clips.double()[:, None], clips.double()[:, None])
    pair = WeightedPair(*logits[1:], torch.stack([weight, weight]), clips=clips)
    fused, _ = fuse_pairs(logits[0], [pair], 3, V, WIDTH)
    torch.testing.assert_close(fused[:, :V].double(), base + weight[:, None] * cut, rtol=1e-5, atol=1e-4)
    assert (cut == 2.0).any() and (cut == -2.0).any()


@pytest.mark.parametrize("damage", [torch.nan, torch.inf, -torch.inf])
def test_a_clip_hides_no_damaged_model(fuse_pairs, logits, damage):
    """Kills: NaN or infinity cut to a number, and its request answered."""
    broken = logits[1].shards.clone()
    broken[0, 1, 7] = damage
    pair = WeightedPair(ShardedLogits(broken), logits[2], torch.ones(2, 3, device=DEVICE), clips=weights(1.0, 1.0, 1.0))
    assert fuse_pairs(logits[0], [pair], 3, V, WIDTH).sound.tolist() == [True, False, True]


def test_strength_zero_returns_the_base_row_bit_for_bit(fuse, logits):
    """Kills blending of the kind (1 - alpha) * base, and a base that is normalised first."""
    fused, _ = fuse(*logits, weights(0, 0, 0), weights(0, 0, 0), None, V, WIDTH)
    assert torch.equal(fused[:, :V], known(logits[0]))


@pytest.mark.parametrize("alpha", [-10.0, 0.1, 0.5, 1 / 3, 10.0])
def test_equal_proxies_cancel_exactly(fuse, logits, alpha):
    """Kills base + a*expert - a*amateur in that order, whose rounding error changes near ties."""
    base, expert, _ = logits
    fused, _ = fuse(base, expert, expert, weights(*[alpha] * 3), weights(*[alpha] * 3), None, V, WIDTH)
    assert torch.equal(fused[:, :V], known(base))


def test_rounding_is_relative_to_the_difference(fuse):
    """Kills a*expert - a*amateur, which cancels for equal proxies and loses the digits of close ones."""
    models = (ShardedLogits.whole(weights(x)[:, None]) for x in (0.0, 4096.25, 4096.0))
    fused, _ = fuse(*models, weights(1 / 3), weights(1 / 3), None, 1, 1)
    torch.testing.assert_close(fused.item(), 0.25 / 3, rtol=1e-6, atol=0)


def test_a_token_the_expert_prefers_goes_up_and_one_the_amateur_prefers_goes_down(fuse):
    """Kills expert and amateur swapped, which equal-proxy and zero-alpha laws don't see."""
    says = ([0.0, 0, 0, 0], [0.0, 2, 0, 0], [0.0, 0, 2, 0])
    models = (ShardedLogits.whole(weights(*row)[None]) for row in says)
    fused, _ = fuse(*models, weights(0.5), weights(0.5), None, 4, 4)
    assert fused.tolist() == [[0.0, 1.0, -1.0, 0.0]]


@pytest.mark.parametrize("width", [V, V + 1, 64, 1025, 3000])
def test_padding_columns_can_never_be_sampled(fuse, logits, width):
    """Kills a slice off by one, padding that is left as it came, and a result as wide as the base happens to be."""
    base = ShardedLogits(logits[0].shards.nan_to_num(nan=1e9))
    fused, sound = fuse(base, *logits[1:], weights(1, 1, 1), weights(1, 1, 1), None, V, width)
    assert fused.shape == (3, width)
    assert torch.isneginf(fused[:, V:]).all() and fused[:, :V].isfinite().all() and sound.all()


@pytest.mark.parametrize("strided", [False, True], ids=["as sent", "strided"])
@pytest.mark.parametrize(
    "layouts", [((2, 32), (2, 25), (4, 16)), ((1, 50), (5, 10), (3, 17)), ((50, 1), (2, 40), (7, 8))]
)
def test_shards_are_rows_cut_in_pieces(fuse, layouts, strided):
    """Kills shards taken for rows, a stride taken from the shape, and one layout used for all three models."""
    whole = [random_rows(seed, 3) for seed in range(3)]
    models = [sharded(of_model, *layout, strided=strided) for of_model, layout in zip(whole, layouts, strict=True)]
    strengths = weights(0.5, 2, -1), weights(0.5, 1, 0)
    fused = fuse(*models, *strengths, None, V, WIDTH)
    wanted = fuse(*map(ShardedLogits.whole, whole), *strengths, None, V, WIDTH)
    assert torch.equal(fused.logits, wanted.logits) and fused.sound.all()


def test_each_row_has_its_own_strength(fuse, logits):
    """Kills one alpha for the batch, and weights broadcast along the vocabulary."""
    expert_weight, amateur_weight = weights(0, 1, -3), weights(2, 1, 0)
    together, _ = fuse(*logits, expert_weight, amateur_weight, None, V, WIDTH)
    for row in range(3):
        one = slice(row, row + 1)
        models = (ShardedLogits(model.shards[:, one]) for model in logits)
        alone, _ = fuse(*models, expert_weight[one], amateur_weight[one], None, V, WIDTH)
        assert torch.equal(together[one], alone)


@pytest.mark.parametrize("strided", [False, True], ids=["as sent", "strided"])
def test_proxies_that_run_some_rows_guide_these_as_if_they_ran_all(fuse, strided):
    """Kills proxy rows taken in the batch's order, and a base row that is looked up among the proxies' rows."""
    base, expert, amateur = (random_rows(seed, 5) for seed in range(3))
    alpha, amateur_alpha = weights(0.5, 0, 2, 0, -1), weights(0.5, 0, 1, 0, 0)
    ran = rows(4, 0, 2)
    some = fuse(
        sharded(base, 2, 30, strided=strided),
        sharded(expert[ran], 3, 20, strided=strided),
        sharded(amateur[ran], 1, 60, strided=strided),
        alpha, amateur_alpha, rows(1, -1, 2, -1, 0), V, WIDTH,
    )  # fmt: skip
    every = fuse(*map(ShardedLogits.whole, (base, expert, amateur)), alpha, amateur_alpha, None, V, WIDTH)
    assert torch.equal(some.logits, every.logits)


def test_a_row_without_proxies_is_the_base_row_at_any_strength(fuse, logits):
    """Kills row -1 read as the last row, and a weight that counts where no proxy ran."""
    one_row = (ShardedLogits(model.shards[:, :1]) for model in logits[1:])
    fused, _ = fuse(logits[0], *one_row, weights(1, 1, 1), weights(1, 0.5, 0), rows(-1, 0, -1), V, WIDTH)
    assert torch.equal(fused[::2, :V], known(logits[0])[::2])
    assert not torch.equal(fused[1, :V], known(logits[0])[1])


def test_without_proxies_every_row_is_the_base_row(fuse, logits):
    """Kills a kernel that needs three models to run."""
    fused, sound = fuse(logits[0], None, None, weights(1, 0, 2), weights(1, 0, 0), None, V, WIDTH)
    assert torch.equal(fused[:, :V], known(logits[0])) and torch.isneginf(fused[:, V:]).all() and sound.all()


def test_the_batch_is_as_long_as_its_weights(fuse, logits):
    """Kills a batch taken from the base or the proxies, which may hold rows of padding."""
    fused, sound = fuse(*logits, weights(1, 2), weights(1, 2), None, V, WIDTH)
    every, _ = fuse(*logits, weights(1, 2, 3), weights(1, 2, 3), None, V, WIDTH)
    assert torch.equal(fused, every[:2]) and sound.shape == (2,)


def test_weights_may_be_columns_of_a_table(fuse_pairs, logits):
    """Kills a pointer that walks past a stride."""
    table = torch.stack([weights(1, 2, 3), weights(0, 2, 1)], dim=1)
    fused, _ = fuse_pairs(logits[0], [WeightedPair(*logits[1:], table.T)], 3, V, WIDTH)
    wanted, _ = fuse_pairs(logits[0], [WeightedPair(*logits[1:], table.T.contiguous())], 3, V, WIDTH)
    assert torch.equal(fused, wanted)


def test_inputs_are_untouched(fuse, logits):
    """Kills in-place arithmetic on a graph's static output."""
    before = [model.shards.clone() for model in logits]
    logits[1].shards[0, 1, 3] = before[1][0, 1, 3] = torch.inf
    arguments = weights(1, 1, 1), weights(1, 0, 1), rows(2, 1, -1)
    kept = [argument.clone() for argument in arguments]
    fuse(*logits, *arguments, V, WIDTH)
    for was, model in zip(before, logits, strict=True):
        torch.testing.assert_close(model.shards, was, rtol=0, atol=0, equal_nan=True)
    assert all(map(torch.equal, arguments, kept))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_added_in_float32(fuse, dtype):
    """Kills a sum or a difference in 16 bits: in bfloat16 256 + 0.5 is 256, and 256 - 0.5 too."""
    models = (ShardedLogits.whole(torch.tensor([[x]], dtype=dtype, device=DEVICE)) for x in (256.0, 256.0, 0.0625))
    fused, _ = fuse(*models, weights(0.5), weights(0.5), None, 1, 1)
    assert fused.dtype == torch.float32 and fused.tolist() == [[256.0 + 0.5 * 255.9375]]


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("proxy_rows", [None, (-1, 0, 1)], ids=["zero strength", "not run"])
def test_a_broken_proxy_does_not_reach_rows_without_guidance(fuse, logits, broken, proxy_rows):
    """Kills 0 * inf."""
    for proxy in logits[1:]:
        proxy.shards[0, :, 3] = broken
    which = None if proxy_rows is None else rows(*proxy_rows)
    alpha = weights(0 if proxy_rows is None else 1, 1, 0)
    fused, sound = fuse(*logits, alpha, alpha, which, V, WIDTH)
    assert sound.tolist() == [True, False, True]
    assert torch.equal(fused[::2, :V], known(logits[0])[::2]), "rows without guidance are the base's"


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", [0, 7, V - 1])
@pytest.mark.parametrize("model", [0, 1, 2])
def test_a_broken_row_becomes_uniform_and_is_reported(fuse, logits, model, column, broken):
    """Kills a NaN that reaches the sampler, a repair that opens the padding columns, and one that hits other rows."""
    ask = weights(1, 1, 1), weights(1, 0.5, 1), None, V, WIDTH
    kept, all_sound = fuse(*logits, *ask)
    logits[model].shards[0, 1, column] = broken
    fused, sound = fuse(*logits, *ask)
    assert all_sound.all() and sound.tolist() == [True, False, True]
    assert torch.equal(fused[::2], kept[::2]), "sound rows are not changed"
    assert (fused[1, :V] == 0).all() and torch.isneginf(fused[1, V:]).all()


def test_a_sum_that_overflows_is_broken_and_the_largest_number_is_not(fuse):
    """Kills a check of the inputs in place of the sum, and a bound that is a large number."""
    largest = torch.finfo(torch.float32).max
    base, expert, amateur = (ShardedLogits.whole(weights(x, 0)[:, None]) for x in (largest, largest, 0))
    fused, sound = fuse(base, expert, amateur, weights(1, 1), weights(1, 1), rows(0, -1), 1, 1)
    assert sound.tolist() == [False, True] and fused.tolist() == [[0.0], [0.0]]
    fused, sound = fuse(base, None, None, weights(1, 1), weights(1, 1), None, 1, 1)
    assert sound.all() and fused[0, 0] == largest


def test_a_row_wholly_broken_over_many_blocks_is_neutral_everywhere(fuse):
    """Kills a repair of the block alone in which the value was found."""
    vocab_size, width = 2500, 3100
    base = random_rows(0, 3, vocab_size)
    base[0, 1234], base[2] = torch.inf, torch.nan
    fused, sound = fuse(
        ShardedLogits.whole(base), None, None, weights(*[0] * 3), weights(*[0] * 3), None, vocab_size, width
    )
    assert sound.tolist() == [False, True, False]
    assert (fused[::2, :vocab_size] == 0).all() and torch.equal(fused[1, :vocab_size], base[1])
    assert torch.isneginf(fused[:, vocab_size:]).all()


LAYOUTS = {
    "whole": lambda known: ShardedLogits.whole(known),
    "padded": lambda known: sharded(known, 1, known.shape[1] + 7),
    "in two": lambda known: sharded(known, 2, (known.shape[1] + 1) // 2 + 8),
    "in four, strided": lambda known: sharded(known, 4, (known.shape[1] + 3) // 4, strided=True),
}


@pytest.mark.skipif(not (CUDA or INTERPRETED), reason="runs interpreted, in the process of the test below")
@pytest.mark.parametrize("vocab_size", [1, 111, 1023, 1024, 1025, 4100, pytest.param(151_665, marks=needs_gpu)])
@pytest.mark.parametrize("layouts", [("whole", "whole", "whole"), ("in two", "in four, strided", "padded")])
@pytest.mark.parametrize(
    "dtypes", ["float32 float32 float32", "bfloat16 bfloat16 bfloat16", "float32 float16 bfloat16"]
)
def test_the_kernel_equals_the_specification(vocab_size, layouts, dtypes):
    """Kills everything that the laws above forgot."""
    models = [
        LAYOUTS[layout](random_rows(seed, 4, vocab_size, getattr(torch, dtype)))
        for seed, (layout, dtype) in enumerate(zip(layouts, dtypes.split(), strict=True))
    ]
    models[1].shards[0, 2, 0] = torch.nan
    ask = weights(0.5, 1, 0, -2, 1.5), weights(0.5, 0.25, 0, 3, 1.5), rows(1, -1, 2, 0, 2), vocab_size, vocab_size + 399
    models[0] = ShardedLogits(torch.cat([models[0].shards, models[0].shards[:, :1]], dim=1))
    fast, specified = of_triple(kernel(), *models, *ask), of_triple(fuse_in_torch, *models, *ask)
    # The kernel may multiply and add with one rounding.
    torch.testing.assert_close(fast.logits, specified.logits, rtol=1e-6, atol=1e-5)
    assert fast.sound.tolist() == specified.sound.tolist() == [True, True, True, True, False]


@pytest.mark.heavy
@pytest.mark.skipif(CUDA or INTERPRETED, reason="the kernel runs in this process")
def test_the_kernel_obeys_the_same_laws_when_interpreted():
    """Kills a mutant of the kernel on a machine without a GPU."""
    assert_kernel_obeys(__file__)


@pytest.mark.heavy
def test_a_cpu_needs_no_triton():
    """Kills an import of the kernel that a machine without triton pays with its life."""
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch; from sgl_proxythinker.step.fusion import fuse_logits\n"
        "from sgl_proxythinker.step.logits import ShardedLogits\n"
        "from sgl_proxythinker.step.logits import WeightedPair\n"
        "base = ShardedLogits.whole(torch.ones(1, 2))\n"
        "pair = WeightedPair(base, base, torch.ones(2, 1))\n"
        "assert fuse_logits(base, [pair], 1, 2, 3).logits.tolist() == [[1, 1, -torch.inf]]\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_the_device_chooses_who_fuses(logits, device):
    """Kills a GPU that is given the slow version, and a CPU that is given the kernel."""
    models = [ShardedLogits(model.shards.to(device)) for model in logits]
    ask = *(weights(0.3, 1, 0).to(device) for _ in range(2)), rows(2, 0, -1).to(device), V, WIDTH
    wanted = of_triple(kernel() if device == "cuda" else fuse_in_torch, *models, *ask)
    fused = of_triple(fuse_logits, *models, *ask)
    assert torch.equal(fused.logits, wanted.logits) and torch.equal(fused.sound, wanted.sound)


@needs_gpu
def test_rows_past_31_bits_are_written_where_they_belong():
    """Kills offsets of 32 bits, which wrap in the last rows of a result of more than 8.6 GB."""
    vocab_size, batch = 151_665, 14_300
    base = random_rows(0, 1, vocab_size).expand(batch, -1)
    fused, sound = fuse_logits(ShardedLogits.whole(base), [], batch, vocab_size, vocab_size)
    assert sound.all() and all(torch.equal(fused[row], base[row]) for row in (0, 14_158, 14_160, batch - 1))


@needs_gpu
def test_nothing_waits_for_the_device(logits):
    """Kills a look at the device from the host, which would stall every step."""
    ask = weights(1, 1, 0), weights(1, 0, 0), rows(1, 0, -1), V, WIDTH
    of_triple(fuse_logits, *logits, *ask)
    torch.cuda.set_sync_debug_mode("error")
    try:
        of_triple(fuse_logits, *logits, *ask)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_rows_gathers_whole_rows():
    """Kills rows joined in the order of memory, and padding that comes along."""
    whole = random_rows(0, 4, dtype=torch.bfloat16)
    index = rows(3, 0, 0)
    for layout in ((1, 64, False), (2, 30, False), (3, 17, True)):
        gathered = sharded(whole, *layout[:2], strided=layout[2]).rows(index, V)
        assert gathered.dtype == torch.bfloat16 and torch.equal(gathered, whole[index])
    assert ShardedLogits.whole(whole).shards.data_ptr() == whole.data_ptr(), "a view"


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"width": V - 1}, "can't hold"),
        ({"weights": torch.ones(2, 2)}, r"weights of a pair are \(2, 2\), not 2 for each of 3 rows"),
        ({"vocab_size": 57}, "first model of a pair are 3 rows of 1 x 56"),
        ({"vocab_size": 53}, "second model of a pair are 3 rows of 1 x 52"),
        ({"base": ShardedLogits(torch.zeros(2, 2, 32))}, "base are 2 rows"),
        ({"plus": ShardedLogits(torch.zeros(1, 2, 56))}, "first model of a pair are 2 rows"),
        ({"minus": ShardedLogits(torch.zeros(1, 2, 56))}, "second model of a pair are 2 rows"),
        ({"base": ShardedLogits(torch.zeros(1, 64, 3).transpose(1, 2))}, "3 elements apart"),
    ],
)
def test_what_would_be_read_out_of_bounds_is_refused(logits, change, complaint):
    """Kills a kernel that reads another tensor's memory."""
    asked = dict(zip(("base", "plus", "minus"), logits, strict=True))
    asked |= {"weights": torch.ones(2, 3), "vocab_size": V, "width": WIDTH} | change
    pair = WeightedPair(asked["plus"], asked["minus"], asked["weights"])
    with pytest.raises(ValueError, match=complaint):
        fuse_logits(asked["base"], [pair], 3, asked["vocab_size"], asked["width"])


def pair_of(seeds: tuple[int, int], table: torch.Tensor, *places: torch.Tensor | None) -> WeightedPair:
    """A pair of random models, one of them in shards; `places`: the rows that each ran for."""
    plus, minus = (random_rows(seed, 3) for seed in seeds)
    return WeightedPair(sharded(plus, 2, 30), sharded(minus, 1, 52), table.to(DEVICE), *places)


def test_several_pairs_add_up(fuse_pairs, logits):
    """Kills: a pair that replaces the one before it, weights of another pair, the padding of a pass as a logit."""
    tables = torch.tensor([[[0.5, 0, 1], [0.5, 2, 0]], [[-1, 0.25, 0], [3, 0.25, 0]], [[0, 0, 2], [0, 0, 2]]])
    pairs = [pair_of((10 + 2 * n, 11 + 2 * n), table) for n, table in enumerate(tables)]
    wanted = known(logits[0]).double()
    for pair in pairs:
        plus_weight, minus_weight = pair.weights.double()
        wanted = wanted + plus_weight[:, None] * known(pair.plus) - minus_weight[:, None] * known(pair.minus)
    fused, sound = fuse_pairs(logits[0], pairs, 3, V, WIDTH)
    torch.testing.assert_close(fused[:, :V].double(), wanted, rtol=1e-5, atol=1e-4)
    assert torch.isneginf(fused[:, V:]).all() and sound.all()


def test_a_pair_without_weight_changes_nothing_bit_for_bit(fuse_pairs, logits):
    """Kills a pass that adds 0 * what a pair says, which is NaN for a broken model."""
    broken = ShardedLogits(torch.full_like(logits[1].shards, torch.nan))
    nothing = WeightedPair(broken, logits[2], torch.zeros(2, 3, device=DEVICE))
    alone = [pair_of((5, 6), torch.tensor([[1.0, 0, 2], [1, 0, -1]]))]
    wanted = fuse_pairs(logits[0], alone, 3, V, WIDTH)
    for pairs in ([nothing, *alone], [*alone, nothing]):
        fused = fuse_pairs(logits[0], pairs, 3, V, WIDTH)
        assert torch.equal(fused.logits, wanted.logits) and fused.sound.all()


def test_equal_models_of_a_second_pair_cancel_exactly(fuse_pairs, logits):
    """Kills a sum of all first models less a sum of all second ones."""
    alone = [pair_of((5, 6), torch.tensor([[1 / 3, 0, 2], [1 / 3, 0, -1]]))]
    same = WeightedPair(logits[1], logits[1], torch.full((2, 3), 1 / 7, device=DEVICE))
    wanted = fuse_pairs(logits[0], alone, 3, V, WIDTH).logits
    assert torch.equal(fuse_pairs(logits[0], [*alone, same], 3, V, WIDTH).logits, wanted)


def test_the_models_of_a_pair_may_have_run_for_other_rows(fuse_pairs, logits):
    """Kills one model's rows taken for the other's, and a row steered by half a pair."""
    plus, minus = random_rows(7, 3), random_rows(8, 3)
    table = torch.tensor([[1.0, 2, 3], [1, 0, 3]], device=DEVICE)
    some = WeightedPair(
        ShardedLogits.whole(plus[[2, 1]]), ShardedLogits.whole(minus[[2, 0]]), table, rows(-1, 1, 0), rows(1, -1, 0)
    )
    whole = WeightedPair(ShardedLogits.whole(plus), ShardedLogits.whole(minus), table)
    fused, wanted = (fuse_pairs(logits[0], [pair], 3, V, WIDTH).logits for pair in (some, whole))
    assert torch.equal(fused[2], wanted[2]) and torch.equal(fused[:2, :V], known(logits[0])[:2])


def test_what_one_pair_breaks_another_does_not_mend(fuse_pairs, logits):
    """Kills a verdict of the last pass alone."""
    endless = ShardedLogits(logits[1].shards.clone())
    endless.shards[0, 1, 3] = torch.inf
    ones = torch.ones(2, 3, device=DEVICE)
    breaks, undoes = WeightedPair(endless, logits[2], ones), WeightedPair(logits[2], endless, ones)
    for pairs in ([breaks, undoes], [undoes, breaks], [breaks, pair_of((5, 6), ones.cpu())]):
        fused, sound = fuse_pairs(logits[0], pairs, 3, V, WIDTH)
        assert sound.tolist() == [True, False, True] and (fused[1, :V] == 0).all()
