"""Laws of the memory plan."""

import pytest

from roster import TRIPLE
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
        RankMemory({BASE: base, EXPERT: proxy}, RowMemory(GIB // 5, GIB // 2, GIB // 4, 3 * GIB // 4), 4 * GIB),
        RankMemory({AMATEUR: proxy}, RowMemory(GIB // 5, 0, 0, 0), GIB),
    ]
    head, *rows = (line.split() for line in graph_table(ranks).splitlines())
    assert head == ["rank", "model", "graphs", "GiB", "logits", "GiB", "images", "GiB", "left", "GiB"]
    assert rows == [
        ["0", "base", "2.00", "0.50", "0.10"],
        ["0", "expert", "1.00", "0.25", "0.10"],
        ["0", "drafts", "0.50"],
        ["0", "penalties", "0.75"],
        ["0", "trace", "0.25"],
        ["0", "fused", "0.20", "2.10"],
        ["1", "amateur", "1.00", "0.25", "0.10"],
        ["1", "fused", "0.20", "0.70"],
    ]
