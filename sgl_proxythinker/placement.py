"""Which ranks run which model.

    shared     all models on all ranks
    split      the base on all ranks; each small model on an equal part of them, in the order of the roster
    dedicated  the base on the first ranks; each small model on ranks of its own behind it

A rank is one of the server's `--tp-size` processes, and one GPU. Every rank runs the same scheduler on the same
requests; the models of a role are sharded over its ranks. A node is one of `--nnodes` hosts, which have equally many
ranks each: node 0 the first ones, the last node the last ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.roles import BASE, Role

PlacementName = Literal["shared", "split", "dedicated"]
NAMES: tuple[PlacementName, ...] = get_args(PlacementName)

MAX_RANKS = 1024  # more is a slip of the finger, and takes long to try
_MOST_RANKS = 16  # where a combination that works is looked for
GIB = 1 << 30

_MOST_WEIGHTS = 0.9  # of a GPU's memory: a server needs room for KV and graphs


@dataclass(frozen=True)
class Placement:
    """The ranks of each role and of each node, and why."""

    name: PlacementName
    world_size: int
    ranks: Mapping[Role, tuple[int, ...]]  # of every model of the roster, the base first; consecutive
    reason: str
    nodes: int = 1

    @property
    def small_models(self) -> tuple[Role, ...]:
        return tuple(role for role in self.ranks if role != BASE)

    @property
    def proxy_tp_size(self) -> int:
        return len(self.ranks[self.small_models[0]])

    def roles_on(self, rank: int) -> tuple[Role, ...]:
        """The models that this rank runs, the base first."""
        return tuple(role for role, ranks in self.ranks.items() if rank in ranks)

    def is_everywhere(self, role: Role) -> bool:
        return len(self.ranks[role]) == self.world_size

    def ranks_of_node(self, node: int) -> range:
        each = self.world_size // self.nodes
        return range(node * each, (node + 1) * each)

    def node_of(self, rank: int) -> int:
        return rank * self.nodes // self.world_size

    def nodes_of(self, role: Role) -> tuple[int, ...]:
        """Of more than one the model's layers sum over the network in every step."""
        return tuple(sorted({self.node_of(rank) for rank in self.ranks[role]}))

    def describe_rank(self, rank: int) -> str:
        """For a person who reads that something happened to this rank."""
        where = f" on node {self.node_of(rank)}" if self.nodes > 1 else ""
        return f"rank {rank}{where}, which runs the {' and the '.join(self.roles_on(rank))}"

    def describe(self) -> list[dict[str, Any]]:
        """The `proxy_ranks` field of /server_info, an item for each rank."""
        return [
            {"rank": rank, "node": self.node_of(rank), "models": list(map(str, self.roles_on(rank)))}
            for rank in range(self.world_size)
        ]

    def __str__(self) -> str:
        where = ", ".join(f"{role} on {_ranks(self.ranks[role])}{self._nodes_in_words(role)}" for role in self.ranks)
        return f"{self.name} ({where}; {self.reason})"

    def _nodes_in_words(self, role: Role) -> str:
        nodes = self.nodes_of(role)
        if self.nodes == 1:
            return ""
        return f" of node {nodes[0]}" if len(nodes) == 1 else f" of nodes {nodes[0]} to {nodes[-1]}"


class Shape(NamedTuple):
    """What of a model counts where it is placed."""

    heads: int
    kv_heads: int
    mlp: int
    vision_heads: int
    vision_mlp: int
    weight_bytes: int = 0  # about, as they are loaded; 0: not known
    token_bytes: int = 0  # KV of one token, of all KV heads, in 16 bits
    head_rows: int = 0  # of the output head
    linear_weights: int = 0  # of the decoder's layers: what quantization makes smaller
    dtype: str = "bfloat16"  # that it computes in
    head_dim: int = 1
    # Weights are quantized in groups or blocks, of which each of several ranks has whole ones: columns of the heads, of
    # the KV heads, of an MLP, and of an MLP of the tower.
    heads_part: int = 1
    kv_part: int = 1
    mlp_part: int = 1
    vision_part: int = 1

    def token_bytes_of_rank(self, tp_size: int) -> int:
        """KV of one token on one of `tp_size` ranks; past the number of KV heads ranks hold copies."""
        return self.token_bytes // min(tp_size, self.kv_heads)

    def obstacle(self, tp_size: int) -> str | None:
        """Why this model can't be sharded over `tp_size` ranks; None where it can."""
        for name in ("heads", "kv_heads", "mlp", "vision_heads", "vision_mlp"):
            count = getattr(self, name)
            # Ranks past the number of KV heads hold copies.
            if count % tp_size and not (name == "kv_heads" and tp_size % count == 0):
                return f"{count} {name.replace('_', ' ')} don't divide by {tp_size}"
        if tp_size == 1:
            return None
        columns = {
            "MLP": (self.mlp // tp_size, self.mlp_part),
            "heads": (self.heads // tp_size * self.head_dim, self.heads_part),
            "KV heads": (max(1, self.kv_heads // tp_size) * self.head_dim, self.kv_part),
            "vision MLP": (self.vision_mlp // tp_size, self.vision_part),
        }
        for name, (width, part) in columns.items():
            if width % part:
                return f"{name} would have {width} columns on each of {tp_size} ranks, and is quantized by {part}"
        return None


def place(
    world_size: int,
    shapes: Mapping[Role, Shape],
    name: PlacementName | None = None,
    proxy_tp_size: int | None = None,
    memory_bytes: int | None = None,
    nodes: int = 1,
    always_drafts: bool = False,
) -> Placement:
    """Place the models on the ranks, as asked for or, where nothing is asked for, as it is fastest.

    Args:
        world_size: `--tp-size`.
        shapes: of the models of the roster, the base first; all small models get equally many ranks.
        name: `--proxy-placement`; None: the first that works of `_candidates`; over several nodes the one of them
            with the fewest models on ranks of more than one.
        proxy_tp_size: `--proxy-tp-size`; None: all ranks in `shared`, an equal part of them in `split`, as few as
            leave the base a number that it divides by in `dedicated`.
        memory_bytes: of one GPU; None: not known.
        nodes: `--nnodes`.
        always_drafts: whether the expert writes ahead in every step.

    Raises:
        LaunchError: no model can be placed like that; names the nearest combination that works.
    """
    if not 1 <= world_size <= MAX_RANKS:
        raise LaunchError(f"--tp-size is {world_size}: it is the number of ranks, from 1 to {MAX_RANKS}.")
    if world_size % nodes:
        near = " or ".join(map(str, _multiples(world_size, nodes)))
        raise LaunchError(
            f"--tp-size {world_size} with --nnodes {nodes}: --tp-size is the number of ranks of all nodes together, "
            f"and each has equally many. What is near and works: {near}."
        )
    drafts_on_both = always_drafts and (world_size, nodes, len(shapes)) == (2, 1, 3)
    candidates = (name,) if name else _candidates(world_size, len(shapes) - 1, drafts_on_both)
    working: list[Placement] = []
    obstacles: list[str] = []
    for candidate in candidates:
        sizes = [proxy_tp_size] if proxy_tp_size else _default_proxy_tp_sizes(candidate, world_size, len(shapes))
        found = {size: _obstacle(candidate, world_size, size, shapes, memory_bytes) for size in sizes}
        reason = "as asked for" if name else "; ".join([_reason(candidate, drafts_on_both), *obstacles])
        options = [
            Placement(candidate, world_size, _ranks_of(candidate, world_size, size, shapes), reason, nodes)
            for size, obstacle in found.items()
            if obstacle is None
        ]
        working += options
        if any(_over_the_network(option) == (0, 0) for option in options):
            break
        obstacle = "models would talk over the network" if options else next(iter(found.values()))
        obstacles.append(f"not {candidate}, where {obstacle}")
    if working:
        return min(working, key=_over_the_network)  # the first of equal ones
    raise LaunchError(
        f"the {_number(len(shapes))} models can't be placed with "
        f"{_typed(name, world_size, proxy_tp_size, len(shapes))}: {'; '.join(obstacles)}. "
        f"{_nearest(name, world_size, proxy_tp_size, shapes, memory_bytes, nodes)}"
    )


def _over_the_network(placement: Placement) -> tuple[int, int]:
    """How many models have layers that sum over it: of the base, which has the most layers, and of the others."""
    crossing = {role for role in placement.ranks if len(placement.nodes_of(role)) > 1}
    return len(crossing & {BASE}), len(crossing - {BASE})


def _multiples(world_size: int, nodes: int) -> list[int]:
    """The nearest numbers of ranks that nodes can share, the smaller one first."""
    below = world_size // nodes * nodes
    return [size for size in (below, below + nodes) if 1 <= size <= MAX_RANKS]


def _candidates(world_size: int, small: int, drafts_on_both: bool) -> tuple[PlacementName, ...]:
    """The placements to try when none is asked for, the preferred one first. `small`: how many small models."""
    if world_size == 1:
        return ("shared",)
    # While the expert writes ahead on one of two GPUs the other waits. (Measured; with more ranks it was not.)
    if drafts_on_both:
        return ("shared", "split", "dedicated")
    # Small models of several experts on ranks of their own, of which a step needs a few, would leave the base the
    # smaller part of the GPUs.
    if small > 2 and world_size < 2 * small:
        return ("split", "shared", "dedicated")
    return _PREFERENCE


_PREFERENCE: tuple[PlacementName, ...] = ("split", "dedicated", "shared")
_DRAFTS_ON_BOTH = "chosen: both ranks work on what the expert writes ahead"
_REASONS = {
    "shared": "chosen: all ranks run all models",
    "split": "chosen: small models run at the same time, on an equal part of the ranks each",
    "dedicated": "chosen: small models on ranks of their own run beside the base",
}


def _reason(name: PlacementName, drafts_on_both: bool) -> str:
    return _DRAFTS_ON_BOTH if drafts_on_both and name == "shared" else _REASONS[name]


def _default_proxy_tp_sizes(name: PlacementName, world_size: int, models: int) -> list[int]:
    """The sizes to try when none is asked for, the preferred one first. `models`: how many, with the base."""
    match name:
        case "shared":
            return [world_size]
        case "split":
            return [max(1, world_size // (models - 1))]
        case "dedicated":
            # Not more than the base has.
            return list(range(1, max(2, world_size // models + 1)))


def _ranks_of(name: PlacementName, world_size: int, each: int, roles: Collection[Role]) -> dict[Role, tuple[int, ...]]:
    """The ranks of every model. `roles`: the base first."""
    everyone = tuple(range(world_size))
    if name == "shared":
        return dict.fromkeys(roles, everyone)
    base, *small = roles
    own = each * len(small)
    parts = {role: everyone[world_size - own + place * each :][:each] for place, role in enumerate(small)}
    return {base: everyone if name == "split" else everyone[: world_size - own], **parts}


def _obstacle(
    name: PlacementName, world_size: int, each: int, shapes: Mapping[Role, Shape], memory_bytes: int | None
) -> str | None:
    """Why the small models can't have `each` ranks in this placement; None where they can."""
    small = len(shapes) - 1
    if name == "shared" and each != world_size:
        return f"all models are on all {world_size} ranks, so --proxy-tp-size is {world_size} or left out"
    # Every rank runs one of the small models: ranks take part in each other's start once for each of their models.
    if name == "split" and world_size % small:
        return f"{world_size} {_rank_word(world_size)} can't be divided into {_number(small)} equal parts"
    if name == "split" and small * each != world_size:
        return f"each small model has {world_size // small} of the {world_size} ranks, not {each}"
    if name == "dedicated" and small * each >= world_size:
        return f"{_number(small)} small models need {small * each} ranks and the base at least one"
    ranks = _ranks_of(name, world_size, each, shapes)
    for role in shapes:
        if obstacle := shapes[role].obstacle(len(ranks[role])):
            return f"the {role}'s {obstacle}"
    return _memory_obstacle(ranks, shapes, memory_bytes) if memory_bytes else None


def _memory_obstacle(
    ranks: Mapping[Role, tuple[int, ...]], shapes: Mapping[Role, Shape], memory_bytes: int
) -> str | None:
    """Why the weights don't fit; None where they do, or where it can't be told."""
    needed: Counter[int] = Counter()
    for role, own in ranks.items():
        needed.update(dict.fromkeys(own, shapes[role].weight_bytes // len(own)))
    rank, most = needed.most_common(1)[0]
    if most <= _MOST_WEIGHTS * memory_bytes:
        return None
    return (
        f"rank {rank} would hold {most / GIB:.0f} GiB of weights, and a GPU has {memory_bytes / GIB:.0f}, of which "
        f"they may take {_MOST_WEIGHTS * memory_bytes / GIB:.0f}"
    )


def _nearest(
    name: PlacementName | None,
    world_size: int,
    proxy_tp_size: int | None,
    shapes: Mapping[Role, Shape],
    memory_bytes: int | None,
    nodes: int,
) -> str:
    """A sentence with the combination that works and differs least from what was asked for."""
    models = len(shapes)
    working = [
        option
        for option in _options(models - 1)
        if option[1] % nodes == 0 and not _obstacle(*option, shapes, memory_bytes)
    ]
    if not working:
        return f"No number of ranks up to {_MOST_RANKS} works for these models."

    def distance(option: tuple[PlacementName, int, int]) -> tuple:
        other_name, other_size, other_each = option
        wished = proxy_tp_size or _default_proxy_tp_sizes(other_name, other_size, models)[0]
        # The number of GPUs is what there is; who names a placement means it.
        return (
            abs(other_size - world_size),
            name is not None and other_name != name,
            abs(other_each - wished),
            other_size > world_size,
            _PREFERENCE.index(other_name),
        )

    return f"The nearest that works: {_typed(*min(working, key=distance), models)}."


def _options(small: int) -> Iterator[tuple[PlacementName, int, int]]:
    for size in range(1, _MOST_RANKS + 1):
        yield "shared", size, size
        yield "split", size, size // small
        for each in range(1, (size - 1) // small + 1):
            yield "dedicated", size, each


def _typed(name: PlacementName | None, world_size: int, proxy_tp_size: int | None, models: int) -> str:
    words = [f"--tp-size {world_size}"]
    if name:
        words.append(f"--proxy-placement {name}")
    if proxy_tp_size and not (name and proxy_tp_size == _default_proxy_tp_sizes(name, world_size, models)[0]):
        words.append(f"--proxy-tp-size {proxy_tp_size}")
    return " ".join(words)


def _number(count: int) -> str:
    return {2: "two", 3: "three"}.get(count, str(count))


def _rank_word(count: int) -> str:
    return "rank" if count == 1 else "ranks"


def _ranks(ranks: tuple[int, ...]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {ranks[0]} to {ranks[-1]}"
