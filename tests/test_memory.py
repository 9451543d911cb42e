"""Laws of the memory plan."""

import pytest

from sgl_proxythinker.models.memory import GIB, KVBudget, ModelMemory, plan_table
from sgl_proxythinker.roles import Role

# bf16 KV bytes per token of Qwen2.5-VL 32B and two 7B.
LARGE = {Role.BASE: 262_144, Role.EXPERT: 57_344, Role.AMATEUR: 57_344}


@pytest.mark.parametrize(
    ("free", "roles", "tokens"),
    [
        (10 * GIB, list(Role), 28_493),  # 28,493.9
        (10 * GIB, [Role.BASE, Role.EXPERT], 33_608),  # 33,608.2
        (10 * GIB, [Role.AMATEUR], 187_245),  # 187,245.7
        (2 * 376_832, list(Role), 2),
        (2 * 376_832 - 1, list(Role), 1),
        (376_831, list(Role), 0),
    ],
)
def test_a_token_takes_the_bytes_of_every_model_of_its_rank(free, roles, tokens):
    assert KVBudget(free, {role: LARGE[role] for role in roles}).tokens == tokens


def test_the_table_shows_what_each_rank_holds_and_its_sum():
    base, proxy = ModelMemory(GIB, LARGE[Role.BASE]), ModelMemory(GIB // 2, LARGE[Role.EXPERT])
    ranks = [{Role.BASE: base, Role.EXPERT: proxy}, {Role.AMATEUR: proxy}]
    head, *rows = (line.split() for line in plan_table(ranks, 1000).splitlines())
    assert head == ["rank", "model", "weights", "GiB", "KV", "bytes/token", "KV", "GiB", "tokens"]
    assert rows == [
        ["0", "base", "1.00", "262,144", "0.24", "1,000"],
        ["0", "expert", "0.50", "57,344", "0.05", "1,000"],
        ["0", "sum", "1.50", "319,488", "0.30", "1,000"],
        ["1", "amateur", "0.50", "57,344", "0.05", "1,000"],
        ["1", "sum", "0.50", "57,344", "0.05", "1,000"],
    ]
