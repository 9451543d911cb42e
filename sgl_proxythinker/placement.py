"""Which ranks run which model.

    shared     all models on all ranks
    split      the base on all ranks; each small model on an equal part of them, in the order of the roster
    dedicated  the base on the first ranks; each small model on ranks of its own behind it

A rank is one of the server's `--tp-size` processes, and one GPU. Every rank runs the same scheduler on the same
requests; the models of a role are sharded over its ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

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
    """The ranks of each role, and why."""

    name: PlacementName
    world_size: int
    ranks: Mapping[Role, tuple[int, ...]]  # of every model of the roster, the base first; consecutive
    reason: str

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

    def describe_rank(self, rank: int) -> str:
        """For a person who reads that something happened to this rank."""
        return f"rank {rank}, which runs the {' and the '.join(self.roles_on(rank))}"

    def __str__(self) -> str:
        where = ", ".join(f"{role} on {_ranks(self.ranks[role])}" for role in self.ranks)
        return f"{self.name} ({where}; {self.reason})"


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
        return None


def place(
    world_size: int,
    shapes: Mapping[Role, Shape],
    name: PlacementName | None = None,
    proxy_tp_size: int | None = None,
    memory_bytes: int | None = None,
) -> Placement:
    """Place the models on the ranks, as asked for or, where nothing is asked for, as it is fastest.

    Args:
        world_size: `--tp-size`.
        shapes: of the models of the roster, the base first; all small models get equally many ranks.
        name: `--proxy-placement`; None: the first that works of `_candidates`.
        proxy_tp_size: `--proxy-tp-size`; None: all ranks in `shared`, an equal part of them in `split`, as few as
            leave the base a number that it divides by in `dedicated`.
        memory_bytes: of one GPU; None: not known.

    Raises:
        LaunchError: no model can be placed like that; names the nearest combination that works.
    """
    if not 1 <= world_size <= MAX_RANKS:
        raise LaunchError(f"--tp-size is {world_size}: it is the number of ranks, from 1 to {MAX_RANKS}.")
    obstacles: list[str] = []
    candidates = _candidates(world_size, len(shapes) - 1)
    for candidate in [name] if name else candidates:
        sizes = [proxy_tp_size] if proxy_tp_size else _default_proxy_tp_sizes(candidate, world_size, len(shapes))
        found = {size: _obstacle(candidate, world_size, size, shapes, memory_bytes) for size in sizes}
        if working := [size for size, obstacle in found.items() if obstacle is None]:
            reason = "as asked for" if name else "; ".join([_REASONS[candidate], *obstacles])
            return Placement(candidate, world_size, _ranks_of(candidate, world_size, working[0], shapes), reason)
        obstacles.append(f"not {candidate}, where {next(iter(found.values()))}")
    raise LaunchError(
        f"the {_number(len(shapes))} models can't be placed with "
        f"{_typed(name, world_size, proxy_tp_size, len(shapes))}: {'; '.join(obstacles)}. "
        f"{_nearest(name, world_size, proxy_tp_size, shapes, memory_bytes)}"
    )


def _candidates(world_size: int, small: int) -> tuple[PlacementName, ...]:
    """The placements to try when none is asked for, the preferred one first. `small`: how many small models."""
    if world_size == 1:
        return ("shared",)
    # Small models of several experts on ranks of their own, of which a step needs a few, would leave the base the
    # smaller part of the GPUs.
    if small > 2 and world_size < 2 * small:
        return ("split", "shared", "dedicated")
    return _PREFERENCE


_PREFERENCE: tuple[PlacementName, ...] = ("split", "dedicated", "shared")
_REASONS = {
    "shared": "chosen: all ranks run all models",
    "split": "chosen: small models run at the same time, on an equal part of the ranks each",
    "dedicated": "chosen: small models on ranks of their own run beside the base",
}


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
) -> str:
    """A sentence with the combination that works and differs least from what was asked for."""
    models = len(shapes)
    working = [option for option in _options(models - 1) if not _obstacle(*option, shapes, memory_bytes)]
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
