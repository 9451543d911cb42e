"""The kernels compile for the GPUs that we serve on, also where there is none: the interpreter looks at no types."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.heavy

triton = pytest.importorskip("triton")

TARGETS = [("cuda", 80, 32), ("cuda", 90, 32), ("cuda", 100, 32)]  # A100; H100 and H200; B200
LOGITS = ["*fp32", "*bf16", "*fp16"]
V, WIDTH = 151_665, 152_064


def compile_for(target, kernel, arguments: dict[str, str | None], constants: dict[str, int], warps: int = 8):
    """Of argument names and types in the order of the kernel, None for one that is None, and of its constants."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {name: kind or "constexpr" for name, kind in arguments.items()}
    given = {name: None for name, kind in arguments.items() if kind is None} | constants
    order = [name for name in kernel.arg_names if name in signature or name in constants]
    assert order == kernel.arg_names, "every argument of the kernel is given"
    whole = {name: signature.get(name, "constexpr") for name in order}
    places = {(order.index(name),): value for name, value in given.items()}
    return triton.compile(ASTSource(kernel, whole, places), target=GPUTarget(*target), options={"num_warps": warps})


def model(name: str, kind: str | None) -> tuple[dict[str, str | None], dict[str, int]]:
    """The arguments of one model's logits, as `sharded_load.as_arguments` gives them."""
    strides = {f"{name}_shard_stride": "i64", f"{name}_row_stride": "i64"}
    shards = {f"{name.upper()}_SHARDS": 2 if kind else 0, f"{name.upper()}_WIDTH": WIDTH // 2 if kind else 0}
    return {name: kind, **strides}, shards


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize(
    ("of_pair", "clips"), [(None, None), *((kind, clips) for kind in LOGITS for clips in (None, "*fp32"))]
)
def test_the_fusion_compiles(target, of_pair, clips):
    from sgl_proxythinker.step.fusion_kernel import _fuse

    base, plus, minus = model("base", "*fp32"), model("plus", of_pair), model("minus", of_pair)
    rows = dict.fromkeys(("plus_rows", "minus_rows"), of_pair and "*i64")
    arguments = {"fused": "*fp32", "sound": "*i1", "weights": of_pair and "*fp32", **rows, "clips": clips}
    for names, _ in (base, plus, minus):
        arguments |= names
    constants = base[1] | plus[1] | minus[1] | {"VOCAB_SIZE": V, "WIDTH": WIDTH, "BLOCK": 1024}
    compile_for(target, _fuse, arguments, constants)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_what_makes_a_broken_row_neutral_compiles(target):
    from sgl_proxythinker.step.fusion_kernel import _neutralize

    compile_for(
        target, _neutralize, {"fused": "*fp32", "sound": "*i1"}, {"VOCAB_SIZE": V, "WIDTH": WIDTH, "BLOCK": 1024}
    )


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("other", [None, *LOGITS])
def test_the_statistics_compile(target, other):
    from sgl_proxythinker.step.statistics_kernel import _row_statistics

    one, second = model("one", other or "*fp32"), model("other", other)
    arguments = {}
    for name in ("one", "other"):
        arguments |= {f"{name}_logsumexps": "*fp64", f"{name}_entropies": "*fp32", f"{name}_top1s": "*i64"}
    arguments |= {"js_nats": "*fp32", "one_rows": "*i64", "other_rows": other and "*i64"}
    arguments |= one[0] | second[0]
    compile_for(target, _row_statistics, arguments, one[1] | second[1] | {"VOCAB_SIZE": V, "BLOCK": 4096})


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("of_base", LOGITS)
@pytest.mark.parametrize("bias", [None, "*fp32"])
def test_the_cut_of_implausible_ids_compiles(target, of_base, bias):
    from sgl_proxythinker.step.plausible_kernel import _cut

    base, shapes = model("base", of_base)
    strides = {"fused_row_stride": "i64", "shard_stride": "i64", "row_stride": "i64", "bias_row_stride": "i64"}
    arguments = {"fused": "*fp32", "rows": "*i64", "margins": "*fp32", "base": base["base"], "bias": bias, **strides}
    constants = {"SHARDS": shapes["BASE_SHARDS"], "WIDTH": shapes["BASE_WIDTH"], "VOCAB_SIZE": V, "BLOCK": 4096}
    compile_for(target, _cut, arguments, constants)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize("past_marker", [None, "*i1"])
def test_the_strengths_of_laws_compile(target, kind, past_marker):
    from sgl_proxythinker.step.law_strengths_kernel import _BLOCK, _WARPS, _law_weights

    of_rows = {"made": "*fp32", "weights": "*fp32", "lengths": "*i64", "past_marker": past_marker, "numbers": "*fp32"}
    arguments = of_rows | {"points": "i32", "plus_rows": "*i64", "minus_rows": "*i64"}
    constants = {"VOCAB_SIZE": V, "NUMBERS": 7, "PLACES": 32, "BLOCK": _BLOCK}
    for name in ("base", "plus", "minus"):
        of_model, shapes = model(name, kind)
        arguments |= of_model
        constants |= shapes
    compile_for(target, _law_weights, arguments, constants, _WARPS)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("chain_bytes", [None, "*i16"])
def test_the_search_for_markers_compiles(target, chain_bytes):
    from sgl_proxythinker.step.markers_kernel import _ENDS, _WARPS, _read

    of_texts = {"sizes": "*i64", "starts": "*i64", "bytes": "*i16", "last_bytes": "*i16", "past_marker": "*i1"}
    of_step = {"markers": "*i16", "width": "i32", "slots": "*i64", "tokens": "*i64", "each": "i32"}
    arguments = of_texts | of_step | {"chain_bytes": chain_bytes, "chain_past": "*i1"}
    compile_for(target, _read, arguments, {"KEPT": 63, "NO_BYTE": -1, "PLACES": 64, "ENDS": _ENDS}, _WARPS)
