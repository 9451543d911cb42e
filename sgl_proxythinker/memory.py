"""How many tokens fit when three models keep KV for every one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sgl_proxythinker.roles import Role

GIB = 1 << 30


class KVBudget(NamedTuple):
    """Free bytes shared by three KV pools that have the same slots.

    One slot number addresses a token in all three pools, so a token costs the sum of the three sizes.
    """

    free_bytes: int
    token_bytes: Mapping[Role, int]

    @property
    def tokens(self) -> int:
        return self.free_bytes // sum(self.token_bytes.values())

    def share_bytes(self, role: Role) -> int:
        return self.tokens * self.token_bytes[role]


def plan_table(weight_bytes: Mapping[Role, int], token_bytes: Mapping[Role, int], tokens: int) -> str:
    """The start-up table: what each model takes on this rank.

    Args:
        weight_bytes: bytes of parameters and buffers per role.
        token_bytes: KV bytes of one token per role.
        tokens: slots in each pool.
    """
    rows = [(str(role), weight_bytes[role] / GIB, token_bytes[role], token_bytes[role] * tokens / GIB) for role in Role]
    rows.append(("sum", *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
    lines = [f"{'model':<8} {'weights GiB':>12} {'KV bytes/token':>15} {'KV GiB':>8} {'tokens':>10}"]
    for name, weights, per_token, kv in rows:
        lines.append(f"{name:<8} {weights:>12.2f} {per_token:>15,d} {kv:>8.2f} {tokens:>10,d}")
    return "\n".join(lines)
