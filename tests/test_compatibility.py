"""Which checkpoints fit together: what can be said without starting a server."""

import json
import logging
from contextlib import nullcontext

import pytest
from safetensors.torch import load_file

from quantized import awq_config, fp8_config, gptq_config
from roster import SMALL
from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.launch.checkpoints import check_models
from sgl_proxythinker.launch.precision import loaded_bytes
from sgl_proxythinker.launch.quantization import check_keys
from sgl_proxythinker.placement import Shape
from sgl_proxythinker.programs.random_models import FAMILIES
from sgl_proxythinker.programs.random_models.size import WIDE
from sgl_proxythinker.programs.random_triple import make_triple
from sgl_proxythinker.roles import BASE, Role
from sgl_proxythinker.vocabulary import known_ids

pytestmark = pytest.mark.usefixtures("sglang")  # compared with, or needed by what is tested


@pytest.fixture
def triple(tmp_path):
    return make_triple(tmp_path)


W4 = {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}
PACKED = {
    "quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": W4},
    "ignore": ["re:visual.*"],
}  # fmt: skip
W8 = {"weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}
FLOATS = PACKED | {"format": "float-quantized", "config_groups": {"group_0": W8}}


def check(triple, expert=None, **given):
    config = ProxyConfig(expert_path=str(expert or triple.expert), amateur_path=str(triple.amateur))
    return check_models(config, {"model_path": str(triple.base), **given})


def shorten(checkpoint, tokens):
    file = checkpoint / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": tokens}))


def test_the_context_is_the_shortest_of_the_three(triple):
    shorten(triple.amateur, 1000)
    assert check(triple).context_length == 1000
    assert check(triple, context_length=600).context_length == 600


def test_every_expert_and_its_own_amateur_are_compared(triple, tmp_path):
    """Kills: a check of the first three models alone."""
    other = make_triple(tmp_path / "other", seed=4, sizes=dict.fromkeys(SMALL, WIDE))
    experts = {"math": {"path": str(other.expert), "amateur_path": str(other.amateur)}}
    config = ProxyConfig(expert_path=triple.expert, amateur_path=triple.amateur, experts=experts)
    found = check_models(config, {"model_path": str(triple.base)})
    assert found.shapes["math-amateur"].mlp == found.shapes["math"].mlp == 512
    shorten(other.amateur, 700)
    assert check_models(config, {"model_path": str(triple.base)}).context_length == 700
    for file in other.expert.glob("tokenizer*.json"):
        file.write_text(file.read_text().replace("<|vision_pad|>", "<|vision_fill|>"))
    with pytest.raises(LaunchError, match="the tokenizers of the base and the math differ"):
        check_models(config, {"model_path": str(triple.base)})


def test_a_servers_marker_needs_tokens_that_are_bytes(triple):
    """Kills: a start that goes on until its first request is refused for what it didn't send."""
    law = {"kind": "schedule", "after": {"text": "</think>", "alpha": 0.2}}
    config = ProxyConfig(expert_path=triple.expert, amateur_path=triple.amateur, law=law)
    check_models(config, {"model_path": str(triple.base)})
    for role in (BASE, *SMALL):
        # Qwen's own class is byte-level, whatever stands in the file.
        for name, more in {
            "tokenizer.json": {"decoder": {"type": "Fuse"}},
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
        }.items():
            file = getattr(triple, role) / name
            file.write_text(json.dumps(json.loads(file.read_text()) | more))
    with pytest.raises(LaunchError, match="--proxy-law changes the strength after a text"):
        check_models(config, {"model_path": str(triple.base)})
    check(triple)


def test_what_must_divide_by_ranks_is_read_of_each_model(tmp_path):
    made = make_triple(tmp_path, sizes={"base": WIDE})
    assert {shape.head_dim for shape in check(made).shapes.values()} == {32}
    unsized = {"weight_bytes": 0, "token_bytes": 0, "head_rows": 0, "linear_weights": 0, "dtype": "", "head_dim": 1}
    assert {role: shape._replace(**unsized) for role, shape in check(made).shapes.items()} == {
        BASE: Shape(heads=8, kv_heads=4, mlp=512, vision_heads=4, vision_mlp=256, dtype=""),
        **dict.fromkeys(SMALL, Shape(heads=4, kv_heads=2, mlp=256, vision_heads=4, vision_mlp=256, dtype="")),
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_the_bytes_of_weights_are_about_those_of_the_file(tmp_path, family):
    """Random triples are float32 files; a server takes 16 bits a weight unless it is told otherwise."""
    triple = make_triple(tmp_path, family=family, sizes={"base": FAMILIES[family].wide})
    for role, shape in check(triple).shapes.items():
        file = getattr(triple, role) / "model.safetensors"
        assert shape.weight_bytes == pytest.approx(file.stat().st_size / 2, rel=0.02), role
        assert check(triple, dtype="float32").shapes[role].weight_bytes == 2 * shape.weight_bytes


def test_each_model_has_the_bytes_of_its_own_precision(triple):
    """AWQ: 4 bits a weight, and for each group of 128 a scale of 16 bits and a zero point of 4."""
    plain = check(triple).shapes
    weights = load_file(triple.base / "model.safetensors").items()
    linear = sum(weight.numel() for name, weight in weights if "model.layers" in name and name.endswith("proj.weight"))
    asked = check(triple, quantization="fp8").shapes
    assert plain[BASE].weight_bytes - asked[BASE].weight_bytes == linear
    assert all(asked[role] == plain[role] for role in SMALL)
    assert loaded_bytes(plain[BASE], "bitsandbytes", None) == 0, "of what is not known no plan is made"
    config = triple.base / "config.json"
    stored = awq_config([])
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": stored}))
    quantized = check(triple).shapes
    assert plain[BASE].weight_bytes - quantized[BASE].weight_bytes == int(linear * (2 - (4 + 20 / 128) / 8))
    assert all(quantized[role] == plain[role] for role in SMALL)


def quantize(checkpoint, **config):
    """In name: no weight is read by a check."""
    file = checkpoint / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": config}))


@pytest.mark.parametrize("role", ["base", "expert"])
@pytest.mark.parametrize("config", [
    awq_config([]), gptq_config([]), fp8_config()([]), {"quant_method": "fp8", "activation_scheme": "dynamic"},
])  # fmt: skip
def test_a_quantized_checkpoint_fits_one_in_16_bits(triple, role, config):
    quantize(getattr(triple, role), **config)
    check(triple)


@pytest.mark.parametrize(("role", "config", "hint"), [
    ("base", awq_config([]) | {"modules_to_not_convert": None}, "modules_to_not_convert"),
    ("amateur", gptq_config([]) | {"dynamic": {}}, '"dynamic": {"-:.*visual.*": {}}'),
    ("expert", gptq_config([]) | {"dynamic": {"+:.*visual.*": {"bits": 8}}}, "dynamic"),
    ("expert", fp8_config()([]) | {"modules_to_not_convert": ["visual.blocks.0.attn.qkv", "lm_head",
                                                              "visual.blocks.0.attn.proj"]}, "modules_to_not_convert"),
])  # fmt: skip
def test_a_tower_in_16_bits_that_would_be_read_as_quantized_is_refused(triple, role, config, hint):
    quantize(getattr(triple, role), **config)
    with pytest.raises(
        LaunchError, match=f"the {role} .* would take visual.* If the tower is in 16 bits, add"
    ) as error:
        check(triple)
    assert hint in str(error.value)


def test_text_models_and_towers_that_sglang_never_quantizes_need_no_rule(tmp_path):
    for family in ("qwen2", "qwen3-vl"):
        triple = make_triple(tmp_path / family, family=family)
        quantize(triple.base, **(gptq_config([]) | {"dynamic": {}}))
        check(triple)


def test_a_quantization_that_was_not_tried_is_refused(triple):
    config = ProxyConfig(
        expert_path=str(triple.expert), amateur_path=str(triple.amateur), amateur={"quantization": "bitsandbytes"}
    )
    with pytest.raises(LaunchError, match="asks for the amateur with quantization 'bitsandbytes': .* fp8, awq"):
        check_models(config, {"model_path": str(triple.base)})
    quantize(triple.expert, quant_method="modelopt", quant_algo="FP8")
    with pytest.raises(LaunchError, match="the expert .* is quantized by 'modelopt'"):
        check(triple)


def test_a_longer_context_than_the_shortest_is_refused(triple):
    shorten(triple.expert, 1000)
    with pytest.raises(LaunchError, match="--context-length 2000 is longer than the expert allows .1000."):
        check(triple, context_length=2000)


def test_equal_proxies_are_a_warning(triple, caplog):
    with caplog.at_level(logging.WARNING):
        check(triple, expert=triple.amateur)
    assert "their difference is zero" in caplog.text


def test_another_architecture_is_refused(triple):
    file = triple.expert / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"architectures": ["Qwen3_5ForConditionalGeneration"]}))
    with pytest.raises(LaunchError, match="the expert .* is a Qwen3_5ForConditionalGeneration: .* where it is one of"):
        check(triple)


@pytest.mark.parametrize(("family", "sentence"), [
    ("qwen3-vl", "reads pictures as Qwen2.5-VL does, and the expert .*, which reads pictures as Qwen3-VL does"),
    ("qwen2-vl", "reads pictures as Qwen2.5-VL does, and the expert .*, which reads pictures as Qwen2-VL does"),
    ("qwen2", "and the expert a Qwen2ForCausalLM, which reads text only"),
])  # fmt: skip
def test_models_that_see_otherwise_are_refused(triple, tmp_path, family, sentence):
    other = make_triple(tmp_path / "other", family=family)
    with pytest.raises(LaunchError, match=sentence):
        check(triple, expert=other.expert)


@pytest.mark.parametrize("family", ["qwen3-moe", "qwen3-vl-moe"])
def test_a_mixture_of_experts_is_a_base_only(tmp_path, family):
    made = make_triple(tmp_path, family=family)
    assert check(made)
    with pytest.raises(LaunchError, match="the expert .* is a Qwen3.*Moe"):
        check(made, expert=made.base)


def test_a_quantized_mixture_of_experts_is_refused_or_said_not_to_be_tried(tmp_path, caplog):
    """SGLang gives a rank of two the scales of the other's experts, or what memory held: no error, other tokens."""
    made = make_triple(tmp_path, family="qwen3-moe")
    store(made.base, quantization_config=gptq_config([]))
    with pytest.raises(
        LaunchError, match="the base .* is a mixture of experts quantized by 'gptq', whose scales SGLang"
    ):
        check(made, dtype="bfloat16")
    ordered = {"group_0": {"weights": W4["weights"] | {"actorder": "weight"}}}
    store(made.base, quantization_config=PACKED | {"config_groups": ordered})
    with pytest.raises(LaunchError, match="a mixture of experts quantized with actorder 'weight', whose scales SGLang"):
        check(made, dtype="bfloat16")
    store(made.base, quantization_config=PACKED)
    assert check(made, dtype="bfloat16").shapes[BASE].mlp_part == 128
    store(made.base, quantization_config=awq_config([]))
    shape = check(made, dtype="bfloat16").shapes[BASE]
    assert (shape.heads_part, shape.mlp_part) == (128, 32)
    store(made.base, quantization_config=fp8_config()([]))
    assert check(made, dtype="bfloat16") and "were never compared" in caplog.text


@pytest.mark.parametrize(
    ("stored", "asked", "parts"),
    [
        (None, None, (1, 1, 1)),
        (awq_config([]), None, (128, 1, 1)),
        (gptq_config([]) | {"group_size": -1}, None, (128, 1, 1)),
        (fp8_config(weight_block_size=[128, 64])([]), None, (128, 128, 1)),
        (fp8_config()([]), None, (4, 1, 1)),
        ({"quant_method": "fp8"}, None, (4, 1, 4)),
        (None, "fp8", (4, 1, 4)),
        (PACKED | {"config_groups": {"group_0": {"weights": W4["weights"] | {"group_size": 32}}}}, None, (128, 1, 1)),
        (PACKED | {"config_groups": {"attention": W4, "mlp": W4}}, None, (128, 1, 1)),
    ],
)  # fmt: skip
def test_a_rank_is_given_whole_groups_and_blocks(triple, stored, asked, parts):
    """Kills: a start that ends while it reads weights, minutes after the doctor called it sound."""
    if stored is not None:
        store(triple.base, quantization_config=stored)
    shape = check(triple, quantization=asked, dtype="bfloat16").shapes[BASE]
    assert (shape.mlp_part, shape.kv_part, shape.vision_part) == parts
    assert shape.heads_part == shape.mlp_part


def test_text_models_of_two_architectures_that_share_a_vocabulary_fit(tmp_path):
    base, small = (make_triple(tmp_path / family, family=family) for family in ("qwen2", "qwen3"))
    assert check(base, expert=small.expert).shapes


def test_a_special_token_with_another_id_is_found(triple):
    file = triple.amateur / "tokenizer_config.json"
    file.write_text(file.read_text().replace("<|vision_pad|>", "<|vision_fill|>"))
    tokenizer = triple.amateur / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("<|vision_pad|>", "<|vision_fill|>"))
    with pytest.raises(LaunchError, match=r"differ in 1 ids: .*'<\|vision_pad\|>' to the base.*to the amateur"):
        check(triple)


def test_known_ids_counts_columns_not_tokens():
    """Ids may have holes; columns below the largest id exist all the same."""

    class Tokenizer:
        def get_vocab(self):
            return {"a": 0, "b": 7}

    assert known_ids(Tokenizer()) == 8


def store(checkpoint, **fields):
    file = checkpoint / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        (awq_config([]) | {"bits": 3}, "'awq' with 3 bits: guidance was built for 4"),
        (awq_config([]) | {"bits": "4"}, "can't be read: bits"),
        (awq_config([]) | {"modules_to_not_convert": [1]}, "can't be read: modules_to_not_convert.0"),
        (gptq_config([]) | {"bits": 8}, "with 8 bits"),
        (gptq_config([]) | {"desc_act": 1}, "can't be read: desc_act"),
        (gptq_config([]) | {"dynamic": {"-:*visual": {}}}, "'-:\\*visual' is no pattern"),
        (PACKED | {"format": "nvfp4-pack-quantized"}, "as nvfp4-pack-quantized: guidance was built for pack-quantized"),
        (PACKED | {"format": "int-quantized"}, "as int-quantized"),
        (PACKED | {"format": "float-quantized"}, "as float-quantized"),
        (PACKED | {"config_groups": {}}, "as pack-quantized: guidance was built for"),
        (PACKED | {"config_groups": {"group_0": {"weights": 5}}}, "can't be read: config_groups.group_0.weights"),
        (PACKED | {"ignore": ["re:*"]}, "'re:\\*' is no pattern"),
        (PACKED | {"ignore": ["re:model.visual.*"]}, 'would take .* too. .* add "ignore": ..re:visual'),
        ({"quant_method": "fp8", "modules_to_not_convert": ["re:.*visual.*"]}, "would take .* too. .* add"),
        (FLOATS | {"ignore": ["visual"]}, 'would take .* too. .* add "ignore": ..re:visual'),
        (awq_config([]) | {"group_size": 48}, "with a group_size of 48: .* -1, 32, 64, 128"),
        (awq_config([]) | {"zero_point": False}, "without zero points"),
        (awq_config([]) | {"version": "GEMV"}, "in the version 'GEMV'"),
        (gptq_config([]) | {"sym": False}, "and not symmetric"),
        (
            PACKED | {"config_groups": {"group_0": {"weights": W4["weights"] | {"group_size": 48}}}},
            "a group_size of 48",
        ),
        (PACKED | {"config_groups": {"group_0": {"weights": W4["weights"] | {"group_size": 128.0}}}}, "can't be read"),
        (PACKED | {"config_groups": {"group_0": {"weights": W4["weights"] | {"actorder": "group"}}}}, "by groups"),
        (PACKED | {"config_groups": None}, "as pack-quantized: guidance was built for"),
        (PACKED | {"config_groups": {"group_0": {}}}, "as pack-quantized: guidance was built for"),
        ({"quant_method": ["awq"]}, "can't be read: quant_method"),
        ({"bits": 4}, "can't be read: quant_method"),
    ],
)
def test_a_quantization_in_another_form_is_refused_by_name(triple, stored, sentence):
    """Kills: a check of the method alone; a traceback of ours for what a config may hold."""
    store(triple.base, quantization_config=stored)
    with pytest.raises(LaunchError, match=f"the base .* {sentence}"):
        check(triple)


@pytest.mark.parametrize("role", ["base", "expert", "amateur"])
@pytest.mark.parametrize("fields", [
    {"desc_act": True},
    {"desc_act": True, "group_size": -1},
    {"quant_method": "gptq_marlin", "desc_act": True},
    {"dynamic": {"-:.*visual.*": {}, "+:.*down_proj": {"desc_act": True}}},
])  # fmt: skip
def test_gptq_with_desc_act_is_refused_by_name(triple, role, fields):
    """Kills: a check of the checkpoint's own field alone; one of the base alone."""
    store(getattr(triple, role), quantization_config=gptq_config([]) | fields)
    sentence = f"the {role} .* with desc_act, whose tokens were never compared .*: use .* without it .*, or in 16 bits"
    with pytest.raises(LaunchError, match=sentence):
        check(triple)


def test_a_quantization_that_stands_elsewhere_is_found(triple):
    store(triple.base, compression_config=PACKED)
    with pytest.raises(LaunchError, match="has its quantization as compression_config in"):
        check(triple)


def test_a_checkpoint_of_modelopt_is_found_by_its_file(triple):
    (triple.expert / "hf_quant_config.json").write_text("{}")
    with pytest.raises(LaunchError, match="the expert .* is quantized by ModelOpt"):
        check(triple)


@pytest.mark.parametrize(
    ("stored", "asked", "dtype", "sentence"),
    [
        (None, "awq", "auto", "is in 16 bits and asked for with quantization 'awq', which has to be stored"),
        (awq_config([]), "fp8", "auto", "is quantized by 'awq' and asked for with quantization 'fp8'"),
        (awq_config([]), "awq", "bfloat16", "whose kernels take float16 only"),
        (awq_config([]), None, "float32", "is quantized and asked for in float32"),
        (None, "fp8", "float", "is quantized and asked for in float32"),
        (awq_config([]), "awq", "float16", None),
        (FLOATS | {"ignore": ["lm_head"]}, None, "bfloat16", None),
        (awq_config([]), "awq_marlin", "bfloat16", None),
        (None, "fp8", "auto", None),
    ],
)
def test_what_is_asked_for_is_what_is_stored(triple, stored, asked, dtype, sentence):
    if stored is not None:
        store(triple.base, quantization_config=stored)
    if sentence is None:
        check(triple, quantization=asked, dtype=dtype)
        return
    with pytest.raises(LaunchError, match=sentence):
        check(triple, quantization=asked, dtype=dtype)


@pytest.mark.parametrize(
    ("kept", "attention", "of_a_step", "amateur", "sentence"),
    [
        ("fp8_e4m3", "fa3", None, "float16", "writes bfloat16 then, and the amateur in float16 can't"),
        ("fp8_e4m3", "triton", "fa3", "float16", "writes bfloat16 then"),
        ("fp8_e5m2", "triton", "fa3", "bfloat16", "fp8_e5m2 can't be read by FlashAttention 3 .*: say fp8_e4m3"),
        ("fp8_e4m3", "fa3", None, "bfloat16", None),
        ("fp8_e4m3", "triton", None, "float16", None),
        ("fp8_e5m2", "triton", None, "float16", None),
        ("auto", "fa3", None, "float16", None),
    ],
)  # fmt: skip
def test_keys_in_8_bits_that_attention_cant_read_are_refused(triple, kept, attention, of_a_step, amateur, sentence):
    """On an H200 a server ended with products of bfloat16 and float16, while it captured its graphs."""
    from sglang.srt.server_args import ServerArgs

    arguments = ServerArgs(model_path=str(triple.base), kv_cache_dtype=kept, device="cpu")
    arguments.override("test", attention_backend=attention, decode_attention_backend=of_a_step)
    dtypes = {BASE: "bfloat16", Role("expert"): "bfloat16", Role("amateur"): amateur}
    with pytest.raises(LaunchError, match=sentence) if sentence else nullcontext():
        check_keys(arguments, dtypes)


def test_a_folder_that_is_none_is_said_to_be_none(triple, tmp_path):
    with pytest.raises(LaunchError, match="there is no such folder"):
        check(triple, expert=tmp_path / "typo")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LaunchError, match="the folder has no config.json"):
        check(triple, expert=tmp_path / "empty")
    store(triple.expert, architectures=[])
    with pytest.raises(LaunchError, match="names no architecture"):
        check(triple)


@pytest.mark.parametrize(
    ("place", "field"),
    [
        ("config.json", "image_token_id"), ("config.json", "vision_start_token_id"),
        ("vision_config", "temporal_patch_size"), ("vision_config", "in_channels"),
        ("preprocessor_config.json", "image_std"), ("preprocessor_config.json", "rescale_factor"),
    ],
)  # fmt: skip
def test_each_thing_that_must_be_equal_is_compared(triple, place, field):
    """Kills: a list of what is compared that has become shorter."""
    file = triple.amateur / ("preprocessor_config.json" if place.startswith("pre") else "config.json")
    config = json.loads(file.read_text())
    holder = config[place] if place in config else config
    value = holder.get(field, {"in_channels": 3}.get(field, 0.5))
    holder[field] = [each + 0.25 for each in value] if isinstance(value, list) else value + 1
    file.write_text(json.dumps(config))
    with pytest.raises(LaunchError, match=f"differ: {field} is"):
        check(triple)
