"""How many tokens fit when several models keep KV for every one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sgl_proxythinker.placement import GIB
from sgl_proxythinker.roles import Role


class KVBudget(NamedTuple):
    """Free bytes of a rank, shared by KV pools that have the same slots.

    One slot number addresses a token in the pools of all models, so a token costs the sum of their sizes.
    """

    free_bytes: int
    token_bytes: Mapping[Role, int]

    @property
    def tokens(self) -> int:
        return self.free_bytes // sum(self.token_bytes.values())


class ModelMemory(NamedTuple):
    """What a model takes on one rank."""

    weight_bytes: int  # parameters and buffers
    token_bytes: int  # KV of one token


class GraphMemory(NamedTuple):
    """What a model takes on one rank beside weights and KV, once its graphs are captured."""

    graph_bytes: int  # its pool of CUDA graphs
    logits_bytes: int  # the float32 logits that its graphs write
    image_bytes: int  # its cache of image embeddings, when it is full


class RowMemory(NamedTuple):
    """What the rows of a rank's largest batch take at most, all of them guided, traced and penalized."""

    fused_bytes: int  # what is sampled from
    drafted_bytes: int  # the drafter's rows of a whole chain of each request, which are kept until they are fused
    traced_bytes: int  # for a moment: what a trace reads off the rows
    # Of drafts: what each request has written, which is not given back, and for a moment the penalties of a part of the
    # rows, or their biases.
    penalized_bytes: int
    gathered_bytes: int  # between ranks: the logits that one sends, and those of all


class RankMemory(NamedTuple):
    """What a rank's models take beside weights and KV, and what is left of its device."""

    models: Mapping[Role, GraphMemory]
    rows: RowMemory
    free_bytes: int  # of the device, with empty image caches and before a batch has run

    @property
    def left_bytes(self) -> int:
        """Of the device, once the largest batch runs and image caches are full."""
        images = sum(of_model.image_bytes for of_model in self.models.values())
        return self.free_bytes - sum(self.rows) - images


def graph_table(ranks: Sequence[RankMemory]) -> str:
    """What is taken beside weights and KV on each rank, and what is left.

    Args:
        ranks: in the order of ranks.
    """
    wide = _widest(memory.models for memory in ranks)
    lines = [f"{'rank':<5} {'model':<{wide}} {'graphs GiB':>11} {'logits GiB':>11} {'images GiB':>11} {'left GiB':>9}"]
    for rank, memory in enumerate(ranks):
        lines += [
            f"{rank:<5} {role:<{wide}} " + " ".join(f"{each / GIB:>11.2f}" for each in of_model)
            for role, of_model in memory.models.items()
        ]
        rows = memory.rows
        sometimes = {
            "drafts": rows.drafted_bytes,
            "penalties": rows.penalized_bytes,
            "trace": rows.traced_bytes,
            "gathered": rows.gathered_bytes,
        }
        lines += [
            f"{rank:<5} {name:<{wide}} {'':>11} {taken / GIB:>11.2f}" for name, taken in sometimes.items() if taken
        ]
        fused, left = rows.fused_bytes / GIB, memory.left_bytes / GIB
        lines.append(f"{rank:<5} {'fused':<{wide}} {'':>11} {fused:>11.2f} {'':>11} {left:>9.2f}")
    return "\n".join(lines)


def plan_table(ranks: Sequence[Mapping[Role, ModelMemory]], tokens: int) -> str:
    """The start-up table: what each model takes on each rank.

    Args:
        ranks: the models of each rank, in the order of ranks.
        tokens: slots in each pool.
    """
    wide = _widest(ranks)
    lines = [f"{'rank':<5} {'model':<{wide}} {'weights GiB':>12} {'KV bytes/token':>15} {'KV GiB':>8} {'tokens':>10}"]
    for rank, models in enumerate(ranks):
        rows = [(str(role), memory.weight_bytes, memory.token_bytes) for role, memory in models.items()]
        rows.append(("sum", sum(row[1] for row in rows), sum(row[2] for row in rows)))
        lines += [
            f"{rank:<5} {name:<{wide}} {weights / GIB:>12.2f} {each:>15,d} {each * tokens / GIB:>8.2f} {tokens:>10,d}"
            for name, weights, each in rows
        ]
    return "\n".join(lines)


def _widest(ranks: Iterable[Iterable[Role]]) -> int:
    """Characters of the column with the models' names."""
    return max(len("penalties"), *(len(role) for models in ranks for role in models))
