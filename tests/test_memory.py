"""Laws of the memory plan."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from roster import TRIPLE
from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.launch.memory_plan import held_before_weights, plan_memory, settle_drafts
from sgl_proxythinker.models.memory import (
    GIB,
    GraphMemory,
    KVBudget,
    ModelMemory,
    RankMemory,
    RowMemory,
    graph_table,
    plan_table,
)
from sgl_proxythinker.placement import Shape, place
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT

# bf16 KV bytes per token of Qwen2.5-VL 32B and two 7B.
LARGE = {BASE: 262_144, EXPERT: 57_344, AMATEUR: 57_344}


@pytest.mark.parametrize(
    ("free", "roles", "tokens"),
    [
        (10 * GIB, list(TRIPLE), 28_493),  # 28,493.9
        (10 * GIB, [BASE, EXPERT], 33_608),  # 33,608.2
        (10 * GIB, [AMATEUR], 187_245),  # 187,245.7
        (2 * 376_832, list(TRIPLE), 2),
        (2 * 376_832 - 1, list(TRIPLE), 1),
        (376_831, list(TRIPLE), 0),
    ],
)
def test_a_token_takes_the_bytes_of_every_model_of_its_rank(free, roles, tokens):
    assert KVBudget(free, {role: LARGE[role] for role in roles}).tokens == tokens


def test_the_table_shows_what_each_rank_holds_and_its_sum():
    base, proxy = ModelMemory(GIB, LARGE[BASE]), ModelMemory(GIB // 2, LARGE[EXPERT])
    ranks = [{BASE: base, EXPERT: proxy}, {AMATEUR: proxy}]
    head, *rows = (line.split() for line in plan_table(ranks, 1000).splitlines())
    assert head == ["rank", "model", "weights", "GiB", "KV", "bytes/token", "KV", "GiB", "tokens"]
    assert rows == [
        ["0", "base", "1.00", "262,144", "0.24", "1,000"],
        ["0", "expert", "0.50", "57,344", "0.05", "1,000"],
        ["0", "sum", "1.50", "319,488", "0.30", "1,000"],
        ["1", "amateur", "0.50", "57,344", "0.05", "1,000"],
        ["1", "sum", "0.50", "57,344", "0.05", "1,000"],
    ]


def test_the_second_table_shows_what_is_left_when_image_caches_are_full():
    """Kills: caches or any kind of rows that are not counted, and a rank that is told another's."""
    base, proxy = GraphMemory(2 * GIB, GIB // 2, GIB // 10), GraphMemory(GIB, GIB // 4, GIB // 10)
    ranks = [
        RankMemory(
            {BASE: base, EXPERT: proxy}, RowMemory(GIB // 5, GIB // 2, GIB // 4, 3 * GIB // 4, GIB // 4), 4 * GIB
        ),
        RankMemory({AMATEUR: proxy}, RowMemory(GIB // 5, 0, 0, 0, 0), GIB),
    ]
    head, *rows = (line.split() for line in graph_table(ranks).splitlines())
    assert head == ["rank", "model", "graphs", "GiB", "logits", "GiB", "images", "GiB", "left", "GiB"]
    assert rows == [
        ["0", "base", "2.00", "0.50", "0.10"],
        ["0", "expert", "1.00", "0.25", "0.10"],
        ["0", "drafts", "0.50"],
        ["0", "penalties", "0.75"],
        ["0", "trace", "0.25"],
        ["0", "gathered", "0.25"],
        ["0", "fused", "0.20", "1.85"],
        ["1", "amateur", "1.00", "0.25", "0.10"],
        ["1", "fused", "0.20", "0.70"],
    ]


# Drafts by default, where memory is tight. A 32B and two 7B, about, in 16 bits on GPUs of 140 GiB.
SHAPES = {
    BASE: Shape(40, 8, 27_648, 16, 3_456, 66 * GIB, LARGE[BASE], 152_064),
    EXPERT: Shape(28, 4, 18_944, 16, 3_456, 16 * GIB, LARGE[EXPERT], 152_064),
    AMATEUR: Shape(28, 4, 18_944, 16, 3_456, 16 * GIB, LARGE[AMATEUR], 152_064),
}
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
PATHS = {"expert_path": "E", "amateur_path": "A"}
MEMORY = 140 * GIB


def arguments_with(share, decode, **more):
    """SGLang's, as far as a plan reads them."""
    return SimpleNamespace(
        mem_fraction_static=share, max_total_tokens=None, context_length=32_768, max_running_requests=None,
        device="cuda", enable_fp32_lm_head=False, cuda_graph_config=SimpleNamespace(decode=decode),
        **{"kv_cache_dtype": "auto"} | more,
    )  # fmt: skip


def settled(share, config, ranks=1, backend="full", **shape):
    """What comes of `config` where so much of a GPU is given to weights and KV, and what is left with and without."""
    models = SimpleNamespace(
        shapes={role: each._replace(**shape) for role, each in SHAPES.items()}, image_cache_bytes=GIB // 10
    )
    placement = place(ranks, SHAPES)
    decode = SimpleNamespace(max_bs=256, backend=backend)
    server_args = arguments_with(share, decode)
    left = [
        plan_memory(models.shapes, placement, server_args, MEMORY, drafts, models.image_cache_bytes).left_bytes
        for drafts in (config.drafts, 0)
    ]
    return *settle_drafts(config, models, placement, server_args, MEMORY), *left


def starts():
    """Of guided servers whose pool was sized by SGLang, on GPUs: the newest of each layout and size of graphs."""
    found = {}
    for file in sorted(RESULTS.glob("*.jsonl")):
        for record in map(json.loads, file.read_text().splitlines()):
            guided = record.get("kind") == "start" and record["configuration"].startswith("guided")
            if guided and not record["capped"] and record["time"] > "2026-11-25":  # before, the scheduler held less
                setting = record["setting"]
                layout = setting.get("placement") or "shared"
                found[layout, setting["tp_size"], max(setting["batches"]), setting.get("speculate")] = record
    return found


@pytest.mark.parametrize("start", starts(), ids=str)
def test_what_graphs_and_steps_take_is_what_a_start_measured(start):
    """Kills: logits of a part of the head, chains for the drafter, and what only one placement takes."""
    layout, ranks, requests, drafts = start
    record = starts()[start]
    decode = SimpleNamespace(max_bs=requests, backend="full")
    drafts, is_fixed = {None: (0, False), "auto": (3, False)}.get(drafts, (drafts, True))
    plan = plan_memory(SHAPES, place(ranks, SHAPES, layout), arguments_with(0.85, decode), MEMORY, drafts, 0)
    models, beside = plan.ranks[0], plan.beside[0]
    held = sum(each.weight_bytes + each.token_bytes * plan.tokens for each in models.values())
    planned = (MEMORY - held_before_weights(place(ranks, SHAPES, layout)) - held - beside.free_bytes) / GIB
    if is_fixed:  # a plan has graphs for steps without drafts, as with `auto`
        planned -= sum(0.1 + requests * 0.00053 for role in models if role != EXPERT)
    taken = record["free_before_gib"] - record["weights_gib"]["sum"] - record["kv_gib"]
    taken -= record["memory_usage"]["startup_available"]
    assert planned == pytest.approx(taken, abs=0.25)


def test_without_graphs_a_plan_has_none():
    """Kills: a sound start that is called wrong for the sake of what was switched off to save memory."""
    decode = SimpleNamespace(max_bs=64, backend="disabled")
    [beside] = plan_memory(SHAPES, place(1, SHAPES), arguments_with(0.8, decode), MEMORY, 3, GIB // 10).beside
    assert all(each.graph_bytes == 0 < each.logits_bytes for each in beside.models.values())


@pytest.mark.parametrize(
    ("cache", "dtype", "bytes_of_one"),
    [("auto", "bfloat16", 2), ("auto", "float32", 4), ("fp8_e5m2", "bfloat16", 1), ("fp8_e4m3", "float32", 1)],
)
def test_the_kv_of_a_plan_is_as_wide_as_that_of_a_start(cache, dtype, bytes_of_one):
    arguments = arguments_with(0.8, SimpleNamespace(max_bs=64, backend="full"), kv_cache_dtype=cache)
    shapes = {role: shape._replace(dtype=dtype) for role, shape in SHAPES.items()}
    [models] = plan_memory(shapes, place(1, SHAPES), arguments, MEMORY, 0, 0).ranks
    assert {role: each.token_bytes * 2 for role, each in models.items()} == {
        role: shape.token_bytes * bytes_of_one for role, shape in SHAPES.items()
    }


@pytest.mark.parametrize("ranks", [1, 2])
def test_drafts_by_default_give_way_where_their_rows_do_not_fit(ranks):
    """Kills: drafts that end a start which fits without them, that are left out where they fit, and that come back.

    Where memory is tighter still they don't: a plan is of the worst batch, so a start may go well that has less.

    On all ranks alike, by the one that has the least.
    """
    default = ProxyConfig(**PATHS)
    decided = {}
    for thousandths in range(900, 1000):
        config, why_not, left, left_without = settled(thousandths / 1000, default, ranks)
        assert (config.drafts == 0) is (left < 0) and (why_not is not None) is (left < 0)
        decided.setdefault((left >= 0, left_without >= 0), why_not)
    assert set(decided) == {(True, True), (False, True), (False, False)}, "the three cases were there"
    row_gib = 152_064 * 4 / GIB
    # Of the graphs of base and amateur, of what is fused, a bias for each row, and the tokens of 288 requests counted,
    # for each of 256. On one rank all that the drafter has written, on the second of two what travels in 16 bits.
    rows = 2 * 3 + 3 + 4 + 288 / 256 + (4 if ranks == 1 else 3 * (2 + 1) / 2)
    graphs = 2 * 0.1 + 1024 * ((0.54 + 0.54) if ranks == 1 else (0.97 + 0.54)) / 1024
    more = 256 * row_gib * rows + graphs
    assert f"their rows take {more:.2f} GiB of a GPU" in decided[False, True]
    assert " GiB of a GPU and 0.00 are left for them" in decided[False, False]


@pytest.mark.parametrize(
    ("config", "more"),
    [
        (ProxyConfig(**PATHS, speculate="auto"), {}),
        (ProxyConfig(**PATHS, speculate=3), {}),
        (ProxyConfig(**PATHS, speculate="off"), {}),
        (ProxyConfig(**PATHS), {"backend": "disabled"}),
        (ProxyConfig(**PATHS), {"weight_bytes": 0}),
    ],
    ids=["auto was asked for", "three were", "none were", "no graphs", "weights of a size that is not known"],
)
def test_a_wish_for_drafts_does_not_give_way_to_a_plan(config, more):
    for thousandths in range(900, 1000, 2):
        assert settled(thousandths / 1000, config, **more)[:2] == (config, None)
