"""An expert and an amateur with one vision tower, served: each picture is encoded once for both, and nothing changes.

The server tells what it encodes, what each model embeds, and whether the spared tower would have said the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cases import Case, ask_all, assert_agrees, mixed_cases, oracle_answer
from roster import TRIPLE
from servers import COMMON, Server, command, sabotaged, serving
from sgl_proxythinker.programs.pictures import random_picture
from sgl_proxythinker.programs.random_triple import make_triple
from sgl_proxythinker.programs.reference_hf import Reference

pytestmark = pytest.mark.xdist_group("ranks")

TELLS_WHAT_IT_SEES = """
import gc, hashlib, json, weakref
from sgl_proxythinker.models import vision_towers

share_equal_towers = vision_towers.share_equal_towers
keeps_spared_tower = {keeps}

def tell(models, placement, world):
    import torch
    from sglang.srt.managers import mm_utils

    def say(**told):
        print("told: " + json.dumps(told | dict(rank=world.rank_in_group)) + "\\n", end="", flush=True)

    def weights():
        return {{role: model.weight_bytes for role, model in models.items()}}

    def same_bits(one, other):
        return torch.equal(one.view(torch.uint8), other.view(torch.uint8))

    towers = {{role: model.vision_tower for role, model in models.items()}}
    tower_bytes = sum(each.numel() * each.element_size() for each in towers["amateur"].parameters())
    tower_bytes += sum(each.numel() * each.element_size() for each in towers["amateur"].buffers())
    spared, before = towers["amateur"], weights()
    weights_of_spared = [weakref.ref(each) for each in spared.parameters()]
    if not keeps_spared_tower:
        del spared, towers
    gc.disable()  # nobody else is to collect what is spared
    share_equal_towers(models, placement, world)
    gc.enable()
    left = sum(weight() is not None for weight in weights_of_spared)
    say(event="weights", before=before, after=weights(), tower=tower_bytes, spared_weights_left=left)

    kind = type(models["base"].vision_tower)
    encode, embed = kind.forward, mm_utils.get_embedding_and_mask

    def encode_aloud(self, pixels, *args, **kwargs):
        embedding = encode(self, pixels, *args, **kwargs)
        is_ours = keeps_spared_tower and self is not models["base"].vision_tower
        as_before = same_bits(embedding, encode(spared, pixels, *args, **kwargs)) if is_ours else None
        say(event="encoded", patches=len(pixels), as_before=as_before)
        return embedding

    def embed_aloud(*args, **kwargs):
        embedding, *rest = embed(*args, **kwargs)
        if embedding is not None:
            bits = embedding.contiguous().view(torch.uint8).cpu().numpy().tobytes()
            say(event="embedded", digest=hashlib.sha256(bits).hexdigest())
        return embedding, *rest

    kind.forward, mm_utils.get_embedding_and_mask = encode_aloud, embed_aloud
    reader = type(models["base"].runner.model.model)
    read = reader.forward

    def read_aloud(self, *args, input_embeds=None, **kwargs):
        if input_embeds is not None:  # of a prefill
            say(event="reads")
        return read(self, *args, input_embeds=input_embeds, **kwargs)

    reader.forward = read_aloud

vision_towers.share_equal_towers = tell
"""


@dataclass(frozen=True)
class Layout:
    """Ranks that all run all models."""

    ranks: int
    keeps_spared_tower: bool  # to compare with it; else it is to be freed

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--tp-size", str(self.ranks), "--proxy-placement", "shared") if self.ranks > 1 else ()


LAYOUTS = {"one rank": Layout(1, True), "shared over two": Layout(2, False)}


@pytest.fixture(scope="module")
def triple(tmp_path_factory):
    return make_triple(tmp_path_factory.mktemp("towers"), seed=4, equal_towers=True)


@pytest.fixture(scope="module")
def reference(triple):
    return Reference(triple.base, triple.expert, triple.amateur)


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request) -> Layout:
    return LAYOUTS[request.param]


@pytest.fixture(scope="module")
def server(layout, triple, tmp_path_factory) -> Iterator[Server]:
    """With chunks of 64 tokens: a picture is read in pieces."""
    flags = (*COMMON, *layout.flags, "--chunked-prefill-size", "64", "--enable-mixed-chunk")
    with telling(triple, flags, tmp_path_factory.mktemp("server"), layout.keeps_spared_tower) as server:
        yield server


def telling(triple: Any, flags: tuple[str, ...], folder: Path, keeps: bool) -> Any:
    arguments = command(triple.base, (triple.expert, triple.amateur), *flags)
    return serving(sabotaged(folder, TELLS_WHAT_IT_SEES.format(keeps=keeps), arguments), folder / "log")


class Told:
    """What a server tells from now on."""

    def __init__(self, server: Server):
        self._server, self._before = server, len(server.log_text())

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self._all() if event["event"] == kind]

    def _all(self) -> list[dict[str, Any]]:
        lines = self._server.log_text()[self._before :].splitlines()
        return [json.loads(line.partition("told: ")[2]) for line in lines if line.startswith("told: ")]

    def order(self, rank: int) -> list[str]:
        """Of a rank: what happened, one after the other."""
        return [event["event"] for event in self._all() if event["rank"] == rank]

    def patches(self) -> dict[int, int]:
        """How many were encoded on each rank, by any tower."""
        counted: Counter[int] = Counter()
        for event in self.events("encoded"):
            counted[event["rank"]] += event["patches"]
        return dict(counted)


def told_at_start(server: Server) -> list[dict[str, Any]]:
    told = Told(server)
    told._before = 0
    return told.events("weights")


def patches_of(case: Case) -> int:
    """Of a case whose pictures are of whole image tokens, 28 pixels wide and high."""
    return sum(image.width * image.height // 14**2 for image in case.images)


# Tokens


@pytest.fixture(scope="module")
def expected(reference):
    """Every second case: text and images, each alpha; two gloo ranks are about ten times slower than one."""
    return [(case, oracle_answer(reference, case)) for case in mixed_cases()[::2]]


def test_a_cold_and_a_warm_cache_give_the_oracles_tokens(server, expected, reference):
    """Kills: a tower or a cache that is shared with the base too, or with the wrong model."""
    server.flush_cache()
    cases = [case for case, _ in expected]
    for _ in ("cold", "warm"):
        for answer, (case, oracle) in zip(ask_all(server, cases), expected, strict=True):
            assert_agrees(answer, oracle, case, reference)


def test_the_amateur_counts_though_it_sees_what_the_expert_sees(expected, reference):
    """Else the tokens above would say nothing about it."""
    case, oracle = next((case, oracle) for case, oracle in expected if case.images and case.alpha == 1.5)
    assert oracle_answer(reference, case, amateur_alpha=0.0).token_ids != oracle.token_ids


# Encoding


def test_a_picture_is_encoded_by_two_towers_of_three_models(server, layout, reference):
    """Kills: two caches, or one that the second model doesn't look into."""
    case = Case("What is here?", (random_picture(101, 112, 84),), 1.5)
    told = Told(server)
    [answer] = ask_all(server, [case])
    assert_agrees(answer, oracle_answer(reference, case), case, reference)
    assert told.patches() == dict.fromkeys(range(layout.ranks), 2 * patches_of(case))


def test_several_pictures_in_chunks_are_each_encoded_once_by_each_tower(server, layout, reference):
    """48, 40 and 64 image tokens of a prompt that is read 64 tokens at a time, and asked about again in other order."""
    shapes = (224, 168), (140, 224), (224, 224)
    images = tuple(random_picture(111 + place, *shape) for place, shape in enumerate(shapes))
    told = Told(server)
    for order in (images, images[::-1]):
        case = Case("Compare them.", order, 0.5)
        [answer] = ask_all(server, [case])
        assert_agrees(answer, oracle_answer(reference, case), case, reference)
    assert told.patches() == dict.fromkeys(range(layout.ranks), 2 * patches_of(case))


def test_all_models_have_embedded_a_picture_before_one_of_them_reads(server, layout):
    """Kills: an embedding that waits until another language model has read, and the answer before it with it."""
    told = Told(server)
    ask_all(server, [Case("Look here.", (random_picture(141),), 1.0)])
    for rank in range(layout.ranks):
        order = [event for event in told.order(rank) if event != "encoded"]
        assert order[:6] == ["embedded"] * 3 + ["reads"] * 3, order


def test_both_embed_the_same_bits_and_the_base_its_own(server, layout):
    told = Told(server)
    ask_all(server, [Case("Look.", (random_picture(131),), 1.0)])
    for rank in range(layout.ranks):
        digests = [event["digest"] for event in told.events("embedded") if event["rank"] == rank]
        assert sorted(Counter(digests).values()) == [1, 2], digests


def test_the_spared_tower_would_have_said_the_same_bits(server, layout):
    if not layout.keeps_spared_tower:
        pytest.skip("it is gone")
    told = Told(server)
    ask_all(server, [Case("Look.", (random_picture(141), random_picture(142, 168, 84)), 1.0)])
    assert {event["as_before"] for event in told.events("encoded")} == {True, None}


# Memory


def test_the_plan_counts_the_tower_once_and_its_weights_are_freed(server, layout):
    """Kills: weights that something still holds, and ones that are counted for two models."""
    told = told_at_start(server)
    assert {event["rank"] for event in told} == set(range(layout.ranks)) and len(told) == layout.ranks
    for event in told:
        spared = {role: event["before"][role] - event["after"][role] for role in event["before"]}
        assert spared == {"base": 0, "expert": 0, "amateur": event["tower"]} and event["tower"] > 1 << 19
        assert (event["spared_weights_left"] > 0) is layout.keeps_spared_tower


def test_the_log_says_so_and_counts_one_cache_of_images(server, layout):
    log = server.log_text()
    assert log.count("expert and amateur share a vision tower") == 1
    [_, table] = log.split("proxythinker: beside weights and KV")
    rows = [line.split() for line in table.splitlines()[2:] if line[:1].isdigit()]
    of_models = [row for row in rows if row[1] in TRIPLE][: len(TRIPLE) * layout.ranks]
    images = [(row[1], float(row[4])) for row in of_models]
    assert images == [("base", 0.1), ("expert", 0.1), ("amateur", 0.0)] * layout.ranks


# Towers that are not equal


def test_one_bit_in_the_shard_of_one_rank_keeps_the_towers_apart(triple, tmp_path):
    """Of a matrix whose last rows are the second rank's, so that the first finds no difference."""
    spoiled = make_triple(tmp_path / "spoiled", seed=4, equal_towers=True)
    file = spoiled.amateur / "model.safetensors"
    weights = load_file(file)
    weights["visual.merger.mlp.0.weight"][-1].view(torch.uint8)[0] ^= 1
    save_file(weights, file, metadata={"format": "pt"})
    flags = (*COMMON, "--tp-size", "2", "--proxy-placement", "shared")
    with telling(spoiled, flags, tmp_path, keeps=False) as server:
        assert "expert and amateur share no vision tower: merger.mlp.0.weight differs" in server.log_text()
        for event in told_at_start(server):
            assert event["before"] == event["after"] and event["spared_weights_left"] > 0
        told, case = Told(server), Case("Look.", (random_picture(151),), 1.0)
        ask_all(server, [case])
        assert told.patches() == dict.fromkeys(range(2), 3 * patches_of(case))
