"""With the attention that SGLang chooses on Hopper (`fa3`) tokens are the oracle's too, with drafts and without.

It wants heads of 64, which the triple of the other tests hasn't: their servers run Triton's attention.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_oracle import (  # noqa: F401
    expected,
    test_a_cold_and_a_warm_cache_give_the_oracles_tokens,
    test_a_conversation_over_images_in_several_turns,
    test_one_request_alone_gives_the_same_tokens_as_in_a_crowd,
    test_the_ablation_without_the_amateur,
)

from servers import COMMON, ON_GPU, command, serving
from sgl_proxythinker.programs.random_models.size import SMALL
from sgl_proxythinker.programs.random_triple import ROLES, make_triple
from sgl_proxythinker.programs.reference_hf import Reference

pytestmark = [
    pytest.mark.xdist_group("hopper_attention"),
    pytest.mark.skipif(not ON_GPU or torch.cuda.get_device_capability()[0] != 9, reason="fa3 needs a Hopper GPU"),
]


@pytest.fixture(scope="module")
def triple(tmp_path_factory):
    return make_triple(tmp_path_factory.mktemp("triple"), sizes=dict.fromkeys(ROLES, replace(SMALL, head_dim=64)))


@pytest.fixture(scope="module")
def reference(triple):
    return Reference(triple.base, triple.expert, triple.amateur)


@pytest.fixture(scope="module", params=["off", "3"])
def guided(request, triple, tmp_path_factory):
    """With graphs and overlap; prompts with an image are read in pieces."""
    flags = (*COMMON, "--attention-backend", "fa3", "--chunked-prefill-size", "64", "--proxy-speculate", request.param)
    log = tmp_path_factory.mktemp("guided") / "log"
    with serving(command(triple.base, (triple.expert, triple.amateur), *flags), log) as server:
        yield server


def test_it_is_what_serves(guided):
    """Kills: a flag of the other tests that wins over this one's, and drafts that nobody makes."""
    told = guided.get("/server_info").json()
    assert told["attention_backend"] == "fa3"
    answer = guided.generate(text="Hi", sampling_params={"max_new_tokens": 64, "ignore_eos": True, "temperature": 0})
    assert ("spec_verify_ct" in answer["meta_info"]) == (told["proxy"]["speculate"] != "off")
