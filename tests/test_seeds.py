"""A request with a seed draws the same tokens whenever and beside whomever it is asked; from the fused distribution.

SGLang honours seeds with `--enable-deterministic-inference`, whose kernels give a row the same numbers in every batch.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from chi_square import SIGNIFICANCE, p_value, softmax
from servers import COMMON, ON_GPU, command, serving

pytestmark = [
    pytest.mark.xdist_group("seeds"),
    pytest.mark.skipif(not ON_GPU, reason="SGLang's deterministic kernels need a GPU"),
]

TOKENS = 24
DRAWS = 3000


@pytest.fixture(scope="module")
def seeded(triple, tmp_path_factory):
    flags = (*COMMON, "--enable-deterministic-inference")
    log = tmp_path_factory.mktemp("seeded") / "log"
    with serving(command(triple.base, (triple.expert, triple.amateur), *flags), log) as server:
        yield server


def draw(server, seed: int, alpha: float, text: str = "Tell") -> list[int]:
    params = {"temperature": 1.0, "max_new_tokens": TOKENS, "ignore_eos": True, "sampling_seed": seed}
    params["custom_params"] = {"proxy_alpha": alpha}
    return server.generate(text=text, sampling_params=params)["output_ids"]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.5])
def test_a_seed_draws_the_same_tokens_alone_and_in_a_crowd(seeded, alpha):
    alone = draw(seeded, 7, alpha)
    with ThreadPoolExecutor(12) as pool:
        again = pool.submit(draw, seeded, 7, alpha)
        # Others of all kinds, some with the same seed.
        others = [pool.submit(draw, seeded, 7 + i % 2, i / 4 - 1, f"Say {i}") for i in range(11)]
    assert again.result() == alone
    assert len({tuple(other.result()) for other in others}) == 11


def test_other_seeds_draw_other_tokens(seeded):
    assert len({tuple(draw(seeded, seed, 0.5)) for seed in range(8)}) == 8


def test_seeds_draw_from_the_fused_distribution(seeded, reference):
    fused, base = (
        softmax(reference.fused_logits("Say", alpha=alpha)[0, : len(reference.tokenizer)]) for alpha in (0.7, 0.0)
    )
    params = {"max_new_tokens": 1, "temperature": 1.0, "custom_params": {"proxy_alpha": 0.7}}
    asked = [{**params, "sampling_seed": seed} for seed in range(DRAWS)]
    drawn = Counter(answer["output_ids"][0] for answer in seeded.generate(text=["Say"] * DRAWS, sampling_params=asked))
    assert p_value(drawn, fused) > SIGNIFICANCE
    assert p_value(drawn, base) < 1e-50, "the test could not tell the fused distribution apart"
