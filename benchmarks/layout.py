"""Which ranks hold which model: the flags of a placement, and the bytes that follow from it.

`--tp-size` is the number of ranks. In `shared` all of them hold a shard of all three models; in `split` all hold a
shard of the base, and half of them one of the expert, half one of the amateur; in `dedicated` a rank holds one model.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.weightless import DIMENSIONS

PLACEMENTS = ("shared", "split", "dedicated")


class Shard(NamedTuple):
    """One of `tp_size` equal parts of a model."""

    model: str  # a key of DIMENSIONS
    tp_size: int

    def step_bytes(self, context_tokens: float) -> float:
        """Bytes read by a decoding step, in 16-bit numbers: weights, and the KV of `context_tokens` in all."""
        dimensions = DIMENSIONS[self.model]
        return dimensions.step_weight_bytes / self.tp_size + context_tokens * self.token_bytes

    @property
    def token_bytes(self) -> int:
        return DIMENSIONS[self.model].kv_bytes_per_token(self.tp_size)


@dataclass(frozen=True)
class Layout:
    """Three models on `tp_size` ranks."""

    base: str
    proxy: str
    tp_size: int = 1
    placement: str = "shared"
    proxy_tp_size: int | None = None  # None: the placement's default

    @property
    def proxy_ranks(self) -> int:
        """TP size of each proxy."""
        default = {"split": max(1, self.tp_size // 2), "dedicated": 1}.get(self.placement, self.tp_size)
        return self.proxy_tp_size or default

    @property
    def base_ranks(self) -> int:
        """TP size of the base."""
        return self.tp_size - 2 * self.proxy_ranks if self.placement == "dedicated" else self.tp_size

    def ranks(self) -> list[list[Shard]]:
        """What a rank holds, one list for each sort of rank; rank 0's first."""
        base, proxy = Shard(self.base, self.base_ranks), Shard(self.proxy, self.proxy_ranks)
        return {"split": [[base, proxy]], "dedicated": [[base], [proxy]]}.get(self.placement, [[base, proxy, proxy]])

    def parts_ms(self, base_ms: float, proxy_ms: float) -> float:
        """What a step takes if each rank runs its models one after the other and nothing is lost between them."""
        return {"split": base_ms + proxy_ms, "dedicated": max(base_ms, proxy_ms)}.get(
            self.placement, base_ms + 2 * proxy_ms
        )

    def describe(self) -> str:
        return f"{self.placement}, {self.tp_size} ranks: base TP {self.base_ranks}, proxies TP {self.proxy_ranks}"

    def proxy_settings(self) -> dict[str, Any]:
        """Fields of `ProxyConfig`; with `--proxy-` in front, flags of a server."""
        fields = {"placement": self.placement, "tp_size": self.proxy_tp_size}
        return {name: value for name, value in fields.items() if value is not None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", choices=DIMENSIONS, default="32B")
    parser.add_argument("--proxy", choices=DIMENSIONS, default="7B")
    parser.add_argument("--tp-size", type=int, default=1, help="number of ranks")
    parser.add_argument("--placement", choices=PLACEMENTS, default="shared", help="of the guided engine")
    parser.add_argument("--proxy-tp-size", type=int, help="of the guided engine; default: the placement's")
    parser.add_argument("--base-tp-size", type=int, help="of the plain base; default: --tp-size")


def layout_of(args: argparse.Namespace) -> Layout:
    return Layout(args.base, args.proxy, args.tp_size, args.placement, args.proxy_tp_size)
