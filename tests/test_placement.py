"""Laws of where the models go: what works is placed soundly, and what doesn't is refused with what does."""

import itertools
import re

import pytest

from roster import SMALL as SMALL_ROLES
from roster import TRIPLE
from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.placement import NAMES, Placement, Shape, place
from sgl_proxythinker.roles import AMATEUR, BASE, EXPERT, Role

LARGE = Shape(heads=40, kv_heads=8, mlp=27648, vision_heads=16, vision_mlp=3456)  # Qwen2.5-VL 32B
SMALL = Shape(heads=28, kv_heads=4, mlp=18944, vision_heads=16, vision_mlp=3420)  # Qwen2.5-VL 7B
PUBLISHED = {BASE: LARGE, **dict.fromkeys(SMALL_ROLES, SMALL)}
TINY = dict.fromkeys(TRIPLE, Shape(heads=4, kv_heads=2, mlp=256, vision_heads=4, vision_mlp=256))
SIXES = dict.fromkeys(TRIPLE, Shape(heads=12, kv_heads=2, mlp=768, vision_heads=12, vision_mlp=768))
NARROW = {BASE: LARGE, EXPERT: SMALL, AMATEUR: SMALL._replace(mlp=18943)}  # one rank or none
FAMILIES = {"published": PUBLISHED, "tiny": TINY, "sixes": SIXES, "narrow": NARROW}

EVERY_WISH = list(itertools.product(range(1, 18), [None, *NAMES], [None, 1, 2, 3, 4, 6, 9]))


def sizes(placement: Placement) -> list[int]:
    return [len(placement.ranks[role]) for role in TRIPLE]


def ranks(placement: Placement) -> list[list[int]]:
    return [list(placement.ranks[role]) for role in TRIPLE]


@pytest.mark.parametrize(
    ("world_size", "name", "proxy_tp_size", "wanted"),
    [
        (1, "shared", None, [[0], [0], [0]]),
        (2, "shared", None, [[0, 1], [0, 1], [0, 1]]),
        (2, "split", None, [[0, 1], [0], [1]]),
        (3, "dedicated", None, [[0], [1], [2]]),
        (4, "shared", 4, [[0, 1, 2, 3]] * 3),
        (4, "split", None, [[0, 1, 2, 3], [0, 1], [2, 3]]),
        (4, "dedicated", None, [[0, 1], [2], [3]]),
        (5, "dedicated", 2, [[0], [1, 2], [3, 4]]),
        (6, "dedicated", None, [[0, 1, 2, 3], [4], [5]]),
        # One rank each would leave the base six, by which its 40 heads don't divide.
        (8, "dedicated", None, [[0, 1, 2, 3], [4, 5], [6, 7]]),
        (8, "split", None, [list(range(8)), [0, 1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_the_published_models_go_where_they_are_asked_to(world_size, name, proxy_tp_size, wanted):
    placement = place(world_size, PUBLISHED, name, proxy_tp_size)
    assert ranks(placement) == wanted
    assert (placement.name, placement.world_size, placement.reason) == (name, world_size, "as asked for")
    assert placement.proxy_tp_size == len(wanted[1])


@pytest.mark.parametrize(
    ("world_size", "wanted", "on_base"),
    [(2, "shared", 2), (3, "split", 3), (4, "shared", 4), (6, "split", 6), (8, "dedicated", 5)],
)
def test_two_experts_and_their_amateur_leave_the_base_most_of_the_gpus(world_size, wanted, on_base):
    """Kills: a base on one of four ranks, beside three small models of which a step needs two."""
    models = TINY | {Role("math"): TINY[EXPERT]}
    models = {role: shape._replace(heads=60, kv_heads=1, mlp=960, vision_heads=60) for role, shape in models.items()}
    if wanted == "dedicated":  # over eight ranks its heads don't divide
        models = {role: shape._replace(vision_mlp=15) for role, shape in models.items()}
    else:
        models = {role: shape._replace(vision_mlp=240) for role, shape in models.items()}
    placement = place(world_size, models)
    assert (placement.name, len(placement.ranks[BASE])) == (wanted, on_base)
    assert set(placement.ranks) == {*TRIPLE, "math"}


@pytest.mark.parametrize(
    ("world_size", "name", "wanted", "reason"),
    [
        (1, "shared", [1, 1, 1], "all ranks run all models"),
        (2, "split", [2, 1, 1], "at the same time, on an equal part of the ranks each"),
        (3, "dedicated", [1, 1, 1], "not split, where 3 ranks can't be divided into two equal parts"),
        (4, "split", [4, 2, 2], "at the same time, on an equal part of the ranks each"),
        (6, "dedicated", [4, 1, 1], "not split, where the base's 40 heads don't divide by 6"),
        (8, "split", [8, 4, 4], "at the same time, on an equal part of the ranks each"),
    ],
)
def test_what_is_not_asked_for_is_chosen_with_a_reason(world_size, name, wanted, reason):
    placement = place(world_size, PUBLISHED)
    assert (placement.name, sizes(placement)) == (name, wanted)
    assert "chosen: " in str(placement) and reason in str(placement) and str(placement).startswith(name)


@pytest.mark.parametrize(
    ("world_size", "nodes", "wanted"),
    [(1, 1, "shared"), (2, 1, "shared"), (2, 2, "split"), (3, 1, "dedicated"), (4, 1, "split")],
)
def test_drafts_in_every_step_are_written_by_both_of_two_gpus(world_size, nodes, wanted):
    """Kills: a GPU that waits while the expert writes ahead on the other. What was not measured is as without."""
    placement = place(world_size, PUBLISHED, nodes=nodes, always_drafts=True)
    assert placement.name == wanted
    assert ("writes ahead" in placement.reason) == ((world_size, nodes) == (2, 1))
    assert place(2, PUBLISHED, "split", always_drafts=True).reason == "as asked for"


def test_drafts_go_where_they_can_where_a_model_can_not_be_on_both():
    models = PUBLISHED | {AMATEUR: PUBLISHED[AMATEUR]._replace(mlp=7)}
    placement = place(2, models, always_drafts=True)
    assert placement.name == "split" and "not shared, where the amateur's 7 mlp don't divide by 2" in placement.reason


def test_each_placement_that_can_not_be_is_told_once():
    models = dict.fromkeys(TRIPLE, Shape(*[7] * 5))
    with pytest.raises(LaunchError) as refused:
        place(2, models, always_drafts=True)
    assert [str(refused.value).count(f"not {name}") for name in NAMES] == [1, 1, 1]


def test_shared_is_chosen_where_nothing_else_works():
    placement = place(5, dict.fromkeys(TRIPLE, Shape(*[5] * 5)))
    assert placement.name == "shared"
    assert "not split, where 5 ranks can't be divided into two equal parts" in placement.reason
    assert "not dedicated, where the base's 5 heads don't divide by 3" in placement.reason


def test_a_base_is_not_given_fewer_ranks_than_a_small_model_unasked():
    with pytest.raises(LaunchError, match="--tp-size 5 --proxy-placement dedicated --proxy-tp-size 2"):
        place(5, PUBLISHED)
    assert sizes(place(5, PUBLISHED, "dedicated", 2)) == [1, 2, 2]


def test_a_size_without_a_name_is_kept():
    placement = place(8, PUBLISHED, proxy_tp_size=2)
    assert (placement.name, sizes(placement)) == ("dedicated", [4, 2, 2])
    assert "not split, where each small model has 4 of the 8 ranks, not 2" in placement.reason
    assert place(6, PUBLISHED, proxy_tp_size=1).name == "dedicated"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_placed_can_run(family):
    """Over every number of ranks, every name and every size of the proxies."""
    shapes, names = FAMILIES[family], set()
    for world_size, name, proxy_tp_size in EVERY_WISH:
        try:
            placement = place(world_size, shapes, name, proxy_tp_size)
        except LaunchError:
            continue
        names.add(placement.name)
        everyone = range(world_size)
        base, expert, amateur = (set(placement.ranks[role]) for role in TRIPLE)
        assert name in (None, placement.name) and placement.world_size == world_size
        assert proxy_tp_size in (None, placement.proxy_tp_size)
        assert len(expert) == len(amateur) == placement.proxy_tp_size
        assert {*base, *expert, *amateur} == set(everyone), "no rank is idle"
        assert 0 in base, "the first rank samples, and has the base"
        for role, own in placement.ranks.items():
            assert list(own) == list(range(own[0], own[-1] + 1)), "the gathering reads a role's ranks as one block"
            for count in shapes[role][:5]:
                divides = count % len(own) == 0 or (count == shapes[role].kv_heads and len(own) % count == 0)
                assert divides, f"{role} of {placement}"
        match placement.name:
            case "shared":
                assert base == expert == amateur
            case "split":
                assert base == set(everyone) and not expert & amateur
                # A rank with a model less would miss collectives of the others' start.
                assert expert | amateur == base
            case "dedicated":
                assert not base & expert and not base & amateur and not expert & amateur
        for rank in everyone:
            assert placement.roles_on(rank) == tuple(role for role in TRIPLE if rank in placement.ranks[role])
    assert names == set(NAMES)


def suggested(refusal: LaunchError) -> tuple[int, str, int | None]:
    [words] = re.findall(r"The nearest that works: (.*)\.$", str(refusal))
    found = re.fullmatch(r"--tp-size (\d+) --proxy-placement (\w+)(?: --proxy-tp-size (\d+))?", words)
    return int(found[1]), found[2], found[3] and int(found[3])


def works(shapes, *wish) -> bool:
    try:
        place(wish[0], shapes, *wish[1:])
    except LaunchError:
        return False
    return True


@pytest.mark.parametrize("family", FAMILIES)
def test_a_refusal_names_the_nearest_that_works_and_it_does(family):
    shapes, refused = FAMILIES[family], 0
    possible = {wish[0] for wish in EVERY_WISH if wish[0] <= 16 and works(shapes, *wish)}
    for world_size, name, proxy_tp_size in EVERY_WISH:
        try:
            place(world_size, shapes, name, proxy_tp_size)
            continue
        except LaunchError as refusal:
            refused += 1
            size, other_name, other_each = suggested(refusal)
        assert works(shapes, size, other_name, other_each), f"{world_size}, {name}, {proxy_tp_size}: not {size}"
        assert abs(size - world_size) == min(abs(other - world_size) for other in possible), "as many GPUs as there are"
        if name and size == world_size and any(works(shapes, size, name, each) for each in range(1, 17)):
            assert other_name == name, "who names a placement means it"
    assert refused > 20


@pytest.mark.parametrize(
    ("wish", "why", "nearest"),
    [
        ((3, "split", None), "3 ranks can't be divided into two equal parts",
         "--tp-size 3 --proxy-placement dedicated"),
        ((2, "dedicated", None), "two small models need 2 ranks and the base at least one",
         "--tp-size 2 --proxy-placement split"),
        ((8, "dedicated", 1), "the base's 40 heads don't divide by 6",
         "--tp-size 8 --proxy-placement dedicated --proxy-tp-size 2"),
        ((4, "split", 1), "each small model has 2 of the 4 ranks, not 1",
         "--tp-size 4 --proxy-placement split"),
        ((4, "shared", 2), "all models are on all 4 ranks, so --proxy-tp-size is 4 or left out",
         "--tp-size 4 --proxy-placement shared"),
        ((8, "shared", None), "the expert's 28 heads don't divide by 8", "--tp-size 8 --proxy-placement split"),
        ((1, "split", None), "1 rank can't be divided into two equal parts", "--tp-size 1 --proxy-placement shared"),
        ((7, None, None), "not shared, where the base's 40 heads don't divide by 7",
         "--tp-size 6 --proxy-placement dedicated"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_does_not_fit(wish, why, nearest):
    with pytest.raises(LaunchError) as refusal:
        place(wish[0], PUBLISHED, *wish[1:])
    assert why in str(refusal.value)
    assert f"The nearest that works: {nearest}." in str(refusal.value)


def test_copies_of_kv_heads_are_no_obstacle():
    assert SMALL.obstacle(4) is None
    few = Shape(heads=8, kv_heads=2, mlp=64, vision_heads=8, vision_mlp=64)
    assert few.obstacle(8) is None, "four ranks hold copies of each"
    assert Shape(12, 4, 12, 12, 12).obstacle(6) == "4 kv heads don't divide by 6"


def in_gib(base: int, small: int) -> dict[Role, Shape]:
    sizes_of = {BASE: base, EXPERT: small, AMATEUR: small}
    return {role: shape._replace(weight_bytes=sizes_of[role] << 30) for role, shape in PUBLISHED.items()}


def test_weights_that_do_not_fit_are_placed_elsewhere_or_refused():
    """62 GiB and two of 15 on GPUs of 80, as the published models in 16 bits."""
    shapes, gpu = in_gib(62, 15), 80 << 30
    assert place(2, shapes, memory_bytes=gpu).name == "split"
    with pytest.raises(LaunchError, match="rank 0 would hold 92 GiB of weights, and a GPU has 80.*--tp-size 2"):
        place(1, shapes, memory_bytes=gpu)
    assert place(1, shapes, memory_bytes=140 << 30).name == "shared"
    assert place(1, shapes).name == "shared", "where the memory is not known, nothing is refused for it"
    # On ranks of its own the base needs more of them; the small models fit anywhere.
    with pytest.raises(LaunchError, match="rank 0 would hold 140 GiB"):
        place(3, in_gib(140, 15), "dedicated", memory_bytes=gpu)
    assert sizes(place(6, in_gib(140, 15), memory_bytes=gpu)) == [4, 1, 1]


def test_a_rank_is_described_by_what_it_runs():
    placement = place(4, TINY, "split")
    assert placement.describe_rank(0) == "rank 0, which runs the base and the expert"
    assert placement.describe_rank(3) == "rank 3, which runs the base and the amateur"
    assert place(3, TINY, "dedicated").describe_rank(2) == "rank 2, which runs the amateur"
    assert str(place(4, TINY, "dedicated")) == (
        "dedicated (base on ranks 0 to 1, expert on rank 2, amateur on rank 3; as asked for)"
    )


ROSTER = (BASE, Role("math"), Role("charts"), AMATEUR)


@pytest.mark.parametrize(
    ("world_size", "name", "each", "wanted"),
    [
        (1, "shared", 1, [(0,)] * 4),
        (6, "split", 2, [tuple(range(6)), (0, 1), (2, 3), (4, 5)]),
        (5, "dedicated", 1, [(0, 1), (2,), (3,), (4,)]),
        (8, "dedicated", 2, [(0, 1), (2, 3), (4, 5), (6, 7)]),
    ],
)
def test_any_number_of_small_models_is_placed(world_size, name, each, wanted):
    """Kills two small models where a number is meant: ranks that two have, or none."""
    shape = Shape(*[720720] * 5)
    placement = place(world_size, dict.fromkeys(ROSTER, shape), name, each)
    assert list(placement.ranks) == list(ROSTER) and list(placement.ranks.values()) == wanted
    assert placement.small_models == ROSTER[1:] and placement.proxy_tp_size == each


def test_what_is_refused_counts_the_small_models():
    shape = Shape(*[720720] * 5)
    for asked, complaint in (
        ((4, "split"), "4 ranks can't be divided into three equal parts"),
        ((3, "dedicated"), "three small models need 3 ranks and the base at least one"),
    ):
        with pytest.raises(LaunchError, match=complaint) as error:
            place(asked[0], dict.fromkeys(ROSTER, shape), asked[1])
        assert str(error.value).startswith("the 4 models can't be placed")


@pytest.mark.parametrize("ranks", [0, -2, 1_000_000])
def test_a_number_of_ranks_that_can_not_be_is_told_at_once(ranks):
    with pytest.raises(LaunchError, match=f"--tp-size is {ranks}: it is the number of ranks, from 1 to 1024"):
        place(ranks, in_gib(62, 15))


@pytest.mark.parametrize(
    ("parts", "ranks", "told"),
    [
        ({"mlp_part": 128}, 2, "MLP would have 14784 columns on each of 2 ranks, and is quantized by 128"),
        ({"mlp_part": 4, "heads_part": 4}, 8, None),
        ({"mlp_part": 128}, 1, None),
        ({"mlp": 29_696, "mlp_part": 128, "heads_part": 128}, 8, None),
        ({"mlp": 29_696, "kv_part": 256}, 8, "KV heads would have 128 columns on each of 8 ranks, and "),
        ({"heads": 8, "heads_part": 256}, 8, "heads would have 128 columns on each of 8 ranks"),
        ({"vision_mlp": 3_420, "vision_part": 4}, 2, "vision MLP would have 1710 columns on each of 2 ranks"),
    ],
)  # fmt: skip
def test_a_rank_has_whole_groups_and_blocks_of_what_is_quantized(parts, ranks, told):
    """A published 72B, whose quantized forms are made wider for this, and the tower of a 7B."""
    fields = {"heads": 64, "kv_heads": 8, "mlp": 29_568, "vision_heads": 16, "vision_mlp": 3_456, "head_dim": 128}
    obstacle = Shape(**fields | parts).obstacle(ranks)
    assert obstacle is None if told is None else told in str(obstacle)
