"""Laws of the memory plan."""

import pytest

from sgl_proxythinker.models.memory import GIB, KVBudget, ModelMemory, plan_table
from sgl_proxythinker.roles import Role

# bf16 KV bytes per token of Qwen2.5-VL 32B and two 7B.
LARGE = {Role.BASE: 262_144, Role.EXPERT: 57_344, Role.AMATEUR: 57_344}


@pytest.mark.parametrize("free", [10 * GIB, 10 * GIB + 12_345, 400_000])
@pytest.mark.parametrize("roles", [list(Role), [Role.BASE, Role.EXPERT], [Role.AMATEUR]], ids=len)
def test_the_pools_of_a_rank_use_what_is_free_and_no_more(free, roles):
    token_bytes = {role: LARGE[role] for role in roles}
    used = KVBudget(free, token_bytes).tokens * sum(token_bytes.values())
    assert used <= free < used + sum(token_bytes.values()), "at most one token's bytes are left over"


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
