"""Laws of the memory plan."""

import pytest

from sgl_proxythinker.memory import GIB, KVBudget, plan_table
from sgl_proxythinker.roles import Role

# bf16 KV bytes per token of Qwen2.5-VL 32B and two 7B.
LARGE = {Role.BASE: 262_144, Role.EXPERT: 57_344, Role.AMATEUR: 57_344}


@pytest.mark.parametrize("free", [10 * GIB, 10 * GIB + 12_345, 400_000])
def test_three_pools_use_what_is_free_and_no_more(free):
    budget = KVBudget(free, LARGE)
    used = sum(budget.share_bytes(role) for role in Role)
    assert used <= free < used + sum(LARGE.values()), "at most one token's bytes are left over"
    assert {budget.share_bytes(role) // LARGE[role] for role in Role} == {budget.tokens}, "the same slots in each pool"


def test_the_table_shows_every_role_and_the_sum():
    table = plan_table({role: GIB for role in Role}, LARGE, 1000)
    rows = {line.split()[0]: line.split() for line in table.splitlines()}
    assert list(rows) == ["model", "base", "expert", "amateur", "sum"]
    assert rows["base"][1:3] == ["1.00", "262,144"] and rows["sum"][1:3] == ["3.00", "376,832"]
