"""A request with a seed draws the same tokens whenever and beside whomever it is asked; from the fused distribution.

SGLang honours seeds with `--enable-deterministic-inference`, whose kernels give a row the same numbers in every batch.
"""

from __future__ import annotations

from collections import Counter

import pytest

from chi_square import SIGNIFICANCE, p_value, softmax
from servers import COMMON, ON_GPU, chat_messages, command, serving

pytestmark = [
    pytest.mark.xdist_group("seeds"),
    pytest.mark.skipif(not ON_GPU, reason="SGLang's deterministic kernels need a GPU"),
]

TOKENS = 24
DRAWS, AT_ONCE = 3000, 1000


@pytest.fixture(scope="module")
def seeded(triple, tmp_path_factory):
    flags = (*COMMON, "--enable-deterministic-inference")
    log = tmp_path_factory.mktemp("seeded") / "log"
    with serving(command(triple.base, (triple.expert, triple.amateur), *flags), log) as server:
        yield server


def params(seed: int, alpha: float) -> dict:
    sampling = {"temperature": 1.0, "max_new_tokens": TOKENS, "ignore_eos": True, "sampling_seed": seed}
    return sampling | {"custom_params": {"proxy_alpha": alpha}}


def draw(server, *asked: dict) -> list[list[int]]:
    """The tokens of requests that share their batches."""
    answers = server.generate(text=["Tell"] * len(asked), sampling_params=list(asked))
    return [answer["output_ids"] for answer in answers]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.5])
def test_a_seed_draws_the_same_tokens_alone_and_in_a_crowd(seeded, alpha):
    [alone] = draw(seeded, params(7, alpha))
    others = [params(8 + number, number / 4 - 1) for number in range(11)]
    crowd = draw(seeded, *others[:5], params(7, alpha), *others[5:])
    assert crowd[5] == alone
    assert len({tuple(tokens) for tokens in crowd}) == 12, "other seeds draw other tokens"


def test_a_seed_in_chat_is_a_seed(seeded):
    def ask(seed: int) -> str:
        answer = seeded.chat(chat_messages("Tell"), 0.5, temperature=1.0, seed=seed, max_tokens=TOKENS)
        return answer["choices"][0]["message"]["content"]

    first = ask(7)
    assert ask(7) == first != ask(8)


def test_seeds_draw_from_the_fused_distribution(seeded, reference):
    fused, base = (
        softmax(reference.fused_logits("Tell", alpha=alpha)[0, : len(reference.tokenizer)]) for alpha in (0.7, 0.0)
    )
    asked = [params(seed, 0.7) | {"max_new_tokens": 1} for seed in range(DRAWS)]
    answers = [draw(seeded, *asked[begin : begin + AT_ONCE]) for begin in range(0, DRAWS, AT_ONCE)]
    drawn = Counter(first for turn in answers for first, *_ in turn)
    assert p_value(drawn, fused) > SIGNIFICANCE
    assert p_value(drawn, base) < 1e-50, "the test could not tell the fused distribution apart"
