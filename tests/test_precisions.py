"""Models of other precisions than 16 bits, each role on its own and together, agree with the oracle of their weights.

Each server has small checkpoints in published formats (`quantized`). Weights are exact in the oracle; where a product
or a cache is made in 8 bits, the oracle rounds in kind, and a server has to round as much (`quantized.assert_agree`).
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml

from cases import Case, close_call, logprob_tolerance, output_ids
from quantized import (
    BASE_SIZE,
    FORMATS,
    SMALL_SIZE,
    Checkpoint,
    QuantizedReference,
    Tokens,
    assert_agree,
    in_16_bits,
    quantize_checkpoint,
    quantized_at_load,
    together,
)
from servers import COMMON, ON_GPU, command, serving
from sgl_proxythinker.programs.pictures import random_picture
from sgl_proxythinker.programs.random_triple import ROLES, make_triple

pytestmark = pytest.mark.skipif(not ON_GPU, reason="kernels of other precisions need a GPU")

HOPPER = 9  # its compute capability
MAX_TOKENS = 24
ALPHAS = 0.0, 1.0  # the base alone, and all three


class Precision(NamedTuple):
    """Of a role: how its checkpoint is written, and what `quantization` is asked for beside."""

    stored: str | None = None  # a key of `FORMATS`; None: in 16 bits
    asked: str | None = None

    def write(self, source: Path, folder: Path) -> Checkpoint:
        if self.stored is not None:
            return quantize_checkpoint(source, folder, self.stored)
        return quantized_at_load(source, folder) if self.asked == "fp8" else in_16_bits(source, folder)


@dataclass(frozen=True)
class Served:
    """The precisions of one server."""

    base: Precision = Precision()
    expert: Precision = Precision()
    amateur: Precision = Precision()
    flags: tuple[str, ...] = ()
    kv_dtype: torch.dtype | None = None
    dtype: str = "float16"

    @property
    def roles(self) -> dict[str, Precision]:
        return {role: getattr(self, role) for role in ROLES}

    @property
    def rounds_cache_alone(self) -> bool:
        """And whose rounding can be told from another's.

        In bfloat16 it can't: an oracle in it was as far from the one in float32 as rounding moves that (0.86 and 0.94
        times).
        """
        eight_bits = any(each.asked == "fp8" or "fp8" in (each.stored or "") for each in self.roles.values())
        return self.kv_dtype is not None and not eight_bits and self.dtype == "float16"


AWQ, GPTQ, FP8, BLOCKS, W4A16, DYNAMIC = map(Precision, FORMATS)
AT_LOAD = Precision(asked="fp8")
# SGLang repacks both for Marlin unless they are asked for by their own name.
PLAIN_AWQ, PLAIN_GPTQ = Precision("awq", "awq"), Precision("gptq", "gptq")
E4M3 = {"flags": ("--kv-cache-dtype", "fp8_e4m3"), "kv_dtype": torch.float8_e4m3fn}
# What SGLang chooses on Hopper; the other servers have the attention of the tests.
E4M3_FA3 = E4M3 | {
    "flags": (*E4M3["flags"], "--attention-backend", "fa3", "--dtype", "bfloat16"), "dtype": "bfloat16"
}  # fmt: skip
DRAFTS = {"flags": ("--proxy-speculate", "3")}
E5M2 = {"flags": ("--kv-cache-dtype", "fp8_e5m2"), "kv_dtype": torch.float8_e5m2}

SERVERS = {
    "base-awq": Served(AWQ),
    "base-gptq": Served(GPTQ),
    "base-fp8": Served(FP8),
    "base-w4a16": Served(W4A16),
    "base-fp8-dynamic": Served(DYNAMIC),
    "small-4-bits-that-differ": Served(Precision(), GPTQ, AWQ),
    "large-awq-small-fp8-at-load": Served(AWQ, AT_LOAD, AT_LOAD),
    "base-fp8-at-load": Served(AT_LOAD, W4A16, Precision()),
    "three-kinds-of-fp8": Served(BLOCKS, DYNAMIC, FP8),
    "two-ranks": Served(AWQ, FP8, GPTQ, flags=("--tp-size", "2")),
    "plain-kernels-kv-e5m2": Served(PLAIN_AWQ, PLAIN_GPTQ, Precision(), **E5M2),
    "kv-e4m3": Served(GPTQ, AWQ, Precision(), **E4M3),
    "kv-e4m3-fa3": Served(**E4M3_FA3),
    "small-fp8-at-load-drafting": Served(Precision(), AT_LOAD, AT_LOAD, **DRAFTS),
    "base-awq-small-fp8-drafting": Served(AWQ, FP8, FP8, **DRAFTS),
    "fp8-with-kv-e4m3": Served(FP8, Precision(), AWQ, **E4M3),
}


def cases() -> list[Case]:
    long_text = "Look at every picture, count what you see, and say it in order. " * 4
    one, wide, tall = random_picture(1, 84, 84), random_picture(2, 224, 112), random_picture(3, 56, 140)
    prompts = [
        ("Hi", ()),
        ("What is the answer to this question?", ()),
        (long_text, ()),
        ("What is in the picture?", (one,)),
        ("What is in the picture?", (wide,)),
        ("Compare the two pictures.", (one, tall)),
        ("Compare the two pictures.", (tall, one)),
        (long_text, (one, wide, tall)),
    ]
    return [Case(text, images, alpha) for text, images in prompts for alpha in ALPHAS]


@pytest.fixture(scope="module")
def triple_in(tmp_path_factory):
    sizes = {"base": BASE_SIZE, "expert": SMALL_SIZE, "amateur": SMALL_SIZE}
    return cache(lambda dtype: make_triple(tmp_path_factory.mktemp("triple"), seed=3, sizes=sizes, dtype=dtype))


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in SERVERS])
def served(request):
    asked = SERVERS[request.param]
    if "fa3" in asked.flags and torch.cuda.get_device_capability()[0] != HOPPER:
        pytest.skip("fa3 needs a Hopper GPU")
    return asked


@pytest.fixture(scope="module")
def checkpoints(served, triple_in, tmp_path_factory):
    folder, triple = tmp_path_factory.mktemp("precisions"), triple_in(served.dtype)
    return tuple(kind.write(getattr(triple, role), folder / role) for role, kind in served.roles.items())


@pytest.fixture(scope="module")
def server(served, checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    asked = {role: kind.asked for role, kind in served.roles.items() if kind.asked}
    flags = (*COMMON, *served.flags, *(("--quantization", asked.pop("base")) if "base" in asked else ()))
    if asked:
        file = folder / "proxies.yaml"
        file.write_text(yaml.safe_dump({role: {"quantization": name} for role, name in asked.items()}))
        flags = (*flags, "--proxy-config", str(file))
    base, expert, amateur = (each.path for each in checkpoints)
    with serving(command(base, (expert, amateur), *flags), folder / "log") as server:
        yield server


def test_a_server_agrees_with_the_oracle_of_the_same_weights(served, server, checkpoints):
    own = QuantizedReference(checkpoints, served.kv_dtype, is_fa3="fa3" in served.flags)
    rounds = served.kv_dtype is not None or any(each.inputs is not None for each in checkpoints)
    finer = QuantizedReference(checkpoints, rounds_inputs=False) if rounds else own
    parts: dict[float, list[Tokens]] = {alpha: [] for alpha in ALPHAS}
    asked = cases()
    if served.kv_dtype is None:
        with ThreadPoolExecutor(len(asked)) as pool:
            answers = list(pool.map(lambda case: ask(server, case), asked))
    else:
        answers = []
        for case in asked:
            server.flush_cache()  # a prefix that is found, a request's beside it too, is read as it is kept: rounded
            answers.append(ask(server, case))
    for case, answer in zip(asked, answers, strict=True):
        images = list(case.images)
        prompt = own.prepare(case.messages(), images).input_ids[0].tolist()
        assert answer["usage"]["prompt_tokens"] == len(prompt), "another prompt was read"
        token_ids = output_ids(answer["choices"][0])
        assert len(token_ids) == MAX_TOKENS
        rows = [
            oracle.fused_logits(prompt, images, token_ids[:-1], alpha=case.alpha)
            for oracle in dict.fromkeys((own, finer))
        ]
        logprobs = [token["logprob"] for token in answer["choices"][0]["logprobs"]["content"]]
        parts[case.alpha].append(Tokens.of(token_ids, logprobs, rows[0], rows[-1]))
    for alpha, of_alpha in parts.items():
        assert_agree(together(of_alpha), logprob_tolerance(alpha), close_call(alpha), served.rounds_cache_alone)


def test_each_models_keys_are_as_wide_as_they_were_asked_for(served, server):
    """By the table of the start: in 8 bits for all three, whatever their weights are in."""
    row = re.compile(rf"^\d+ +({'|'.join(ROLES)}) +[\d.]+ +([\d,]+) ", re.MULTILINE)
    told = dict.fromkeys(ROLES, 0)
    for role, token_bytes in row.findall(server.log_text()):
        told[role] += int(token_bytes.replace(",", ""))
    width = 2 if served.kv_dtype is None else 1
    sizes = {"base": BASE_SIZE, "expert": SMALL_SIZE, "amateur": SMALL_SIZE}
    assert told == {role: 2 * size.layers * size.kv_heads * size.head_dim * width for role, size in sizes.items()}, (
        "the ranks of a model hold its keys and values once"
    )


def ask(server, case):
    return server.chat(
        case.messages(), case.alpha, max_tokens=MAX_TOKENS, logprobs=True, extra_body={"ignore_eos": True}
    )
