"""Laws of the checkpoints that `quantized` writes: each format's own reader finds the weights that the oracle has."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file

from interpreted import assert_kernel_obeys
from quantized import (
    BASE_SIZE,
    FORMATS,
    GROUP,
    SMALL_SIZE,
    Checkpoint,
    QuantizedReference,
    Tokens,
    assert_agree,
    awq_config,
    fp8_config,
    gptq_config,
    in_16_bits,
    quantize_checkpoint,
    quantized_at_load,
    rounded,
)
from sgl_proxythinker.architectures import ARCHITECTURES
from sgl_proxythinker.launch.quantization import _is_left_out
from sgl_proxythinker.programs.random_triple import make_triple

ON_DEVICE = torch.cuda.is_available()
NAME = "model.layers.0.self_attn.k_proj"


def layer(name, outputs=256, inputs=512):
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0)) / 20
    return FORMATS[name].layer(NAME, weight.half().float()), weight


@pytest.mark.parametrize("name", FORMATS)
def test_a_weight_is_near_what_it_was(name):
    """The rounding error of 4 bits in groups of normal numbers is about a tenth, that of 8 bits with exponents 3 %."""
    quantized, weight = layer(name)
    bits = 8 if "fp8" in name else 4
    error = (quantized.exact - weight).norm() / weight.norm()
    assert {4: 0.08, 8: 0.02}[bits] < error < {4: 0.13, 8: 0.03}[bits]


IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.mark.skipif(not (ON_DEVICE or IS_INTERPRETED), reason="interpreted by the test below")
def test_awq_kernel_reads_the_oracles_weights():
    """SGLang's kernel in Triton, which rounds to 16 bits."""
    from sglang.kernels.ops.quantization.awq_triton import awq_dequantize_triton

    quantized, _ = layer("awq")
    device = "cuda" if ON_DEVICE else "cpu"
    stored = {end: tensor.to(device) for end, tensor in quantized.stored.items()}
    read = awq_dequantize_triton(stored["qweight"], stored["scales"], stored["qzeros"])
    assert torch.equal(read.T.cpu(), quantized.exact.half())


@pytest.mark.heavy
@pytest.mark.skipif(ON_DEVICE or IS_INTERPRETED, reason="the one above runs as it is")
@pytest.mark.usefixtures("sglang")
def test_awq_is_what_sglang_reads_when_interpreted():
    assert_kernel_obeys(__file__)


@pytest.mark.usefixtures("sglang")
def test_gptq_is_packed_as_sglang_packs():
    from sglang.srt.layers.quantization.utils import pack_rows, unpack_cols

    quantized, weight = layer("gptq")
    stored, (outputs, inputs) = quantized.stored, weight.shape
    scales = stored["scales"].float().repeat_interleave(GROUP, 0)
    codes = (quantized.exact.T / scales).round() + 8
    assert codes.min() == 0 and codes.max() == 15
    assert torch.equal(stored["qweight"], pack_rows(codes.int(), 4, inputs, outputs))
    zeros = unpack_cols(stored["qzeros"], 4, inputs // GROUP, outputs)
    assert (zeros + 1 == 8).all()
    assert torch.equal(stored["g_idx"], torch.arange(inputs, dtype=torch.int32) // GROUP)


@pytest.mark.usefixtures("sglang")
def test_fp8_is_read_as_sglang_reads_it():
    from sglang.srt.layers.quantization.fp8_utils import block_quant_dequant
    from sglang.srt.layers.quantization.utils import per_tensor_dequantize

    one, _ = layer("fp8")
    assert torch.equal(per_tensor_dequantize(*one.stored.values()), one.exact)
    blocks, _ = layer("fp8-blocks")
    stored = blocks.stored["weight"], blocks.stored["weight_scale_inv"]
    assert torch.equal(block_quant_dequant(*stored, [128, 128], torch.float32), blocks.exact)


@pytest.mark.parametrize(("name", "form"), [("w4a16", "pack-quantized"), ("fp8-dynamic", "float-quantized")])
def test_compressed_tensors_decompresses_the_oracles_weights(name, form):
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    quantized, _ = layer(name)
    group = FORMATS[name].config([])["config_groups"]["group_0"]
    scheme = QuantizationScheme.model_validate(group)
    state = dict(quantized.stored) | {"weight_scale": quantized.stored["weight_scale"].float()}
    read = BaseCompressor.get_value_from_registry(form).decompress(state, scheme)["weight"]
    assert torch.equal(read.float(), quantized.exact)


class TestCheckpoints:
    @pytest.fixture(scope="class")
    def base(self, tmp_path_factory):
        sizes = {"base": BASE_SIZE, "expert": SMALL_SIZE, "amateur": SMALL_SIZE}
        return make_triple(tmp_path_factory.mktemp("triple"), seed=3, sizes=sizes, dtype="float16").base

    @pytest.mark.parametrize("name", FORMATS)
    def test_what_is_not_quantized_is_left_as_it_was(self, base, name, tmp_path):
        checkpoint = quantize_checkpoint(base, tmp_path, name)
        before = load_file(base / "model.safetensors")
        stored, exact = (load_file(path / "model.safetensors") for path in (checkpoint.path, checkpoint.exact))
        assert exact.keys() == before.keys()
        changed = {key for key, weight in before.items() if not torch.equal(exact[key], weight.float())}
        assert changed == {key for key in before if ".layers." in key and key.endswith("_proj.weight")}
        assert all(torch.equal(stored[key], before[key]) for key in before.keys() - changed)
        config = json.loads((checkpoint.path / "config.json").read_text())
        assert config["quantization_config"]["quant_method"] in ("awq", "gptq", "fp8", "compressed-tensors")
        assert "quantization_config" not in json.loads((checkpoint.exact / "config.json").read_text())

    @pytest.mark.usefixtures("sglang")
    @pytest.mark.parametrize("name", FORMATS)
    def test_sglang_finds_the_towers_layers_left_out(self, base, name, tmp_path):
        """By its own rules, with the names that its models give their layers."""
        config = json.loads((quantize_checkpoint(base, tmp_path, name).path / "config.json").read_text())
        leaves_out = left_out_by(config["quantization_config"])
        tower = ("attn.qkv_proj", "attn.proj", "mlp.gate_up_proj", "mlp.down_proj")
        assert all(map(leaves_out, [f"visual.blocks.1.{end}" for end in tower]))
        assert all(map(leaves_out, ["visual.merger.mlp.0", "visual.merger.mlp.2"]))
        assert all(_is_left_out(name, config["quantization_config"]["quant_method"], config["quantization_config"])
                   for name in ARCHITECTURES[config["architectures"][0]].tower_layers)  # fmt: skip
        decoder = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
        assert not any(map(leaves_out, [f"model.layers.0.{end}" for end in decoder]))

    @pytest.mark.usefixtures("sglang")
    @pytest.mark.parametrize(("method", "rule"), [
        ("awq", {"modules_to_not_convert": ["attn", "merger"]}),
        ("awq", {"modules_to_not_convert": None}),
        ("gptq", {"dynamic": {"+:.*proj": {"bits": 8}, "-:.*visual.*": {}}}),
        ("gptq", {"dynamic": {"-:visual.merger": {}}}),
        ("fp8", {"modules_to_not_convert": ["model.visual.blocks.0.mlp", "merger"]}),
        ("fp8", {"modules_to_not_convert": ["visual.blocks.0.attn.q_proj", "visual.blocks.0.mlp.gate_proj"]}),
        ("fp8", {"modules_to_not_convert": None}),
        ("compressed-tensors", {"ignore": ["re:model\\.visual\\..*"]}),
        ("compressed-tensors", {"ignore": ["re:visual.*", "lm_head"]}),
        ("compressed-tensors", {"ignore": ["re:.*attn.qkv", "visual"]}),
        ("compressed-tensors", {"ignore": ["model.visual.blocks.0.attn.qkv", "attn.proj", "visual.merger.mlp.0"]}),
        ("compressed-tensors", {"ignore": ["model.visual.blocks.0.mlp.gate_proj", "visual.blocks.0.mlp.up_proj"]}),
        ("compressed-tensors", {"ignore": ["visual.blocks.0.mlp.gate_proj", "visual.blocks.0.mlp.down_proj"]}),
        ("compressed-tensors", {"ignore": ["visual.blocks.0.mlp.gate_up_proj"]}),
        ("compressed-tensors", {"ignore": []}),
    ])  # fmt: skip
    def test_the_check_before_a_launch_has_sglangs_rules(self, method, rule):
        configs = {
            "awq": awq_config, "gptq": gptq_config, "fp8": fp8_config(),
            "compressed-tensors": FORMATS["fp8-dynamic"].config,
        }  # fmt: skip
        config = configs[method]([]) | rule
        config = {name: value for name, value in config.items() if value is not None}
        leaves_out = left_out_by({"modules_to_not_convert": []} | config)
        for name in {*ARCHITECTURES["Qwen2_5_VLForConditionalGeneration"].tower_layers, "visual.blocks.0.mlp.fc1"}:
            assert _is_left_out(name, method, config) == sglang_says(leaves_out, name), name

    @pytest.mark.usefixtures("sglang")
    def test_sglang_does_not_find_a_fused_layer_of_fp8_among_single_names(self):
        """So such a checkpoint is refused before the launch."""
        config = fp8_config()([]) | {
            "modules_to_not_convert": ["visual.blocks.1.attn.qkv", "visual.blocks.1.attn.proj"]
        }
        leaves_out = left_out_by(config)
        assert leaves_out("visual.blocks.1.attn.proj") and not leaves_out("visual.blocks.1.attn.qkv_proj")

    def test_fp8_at_load_has_the_tower_too(self, base, tmp_path):
        before, exact = (
            load_file(path / "model.safetensors") for path in (base, quantized_at_load(base, tmp_path).exact)
        )
        changed = {key for key, weight in before.items() if not torch.equal(exact[key], weight.float())}
        linear = {key for key, weight in before.items() if key.endswith("weight") and weight.dim() == 2}
        assert changed == linear - {"lm_head.weight", "model.embed_tokens.weight"}

    def test_the_oracle_reads_inputs_in_8_bits_where_a_kernel_does(self, base, tmp_path):
        exact = in_16_bits(base, tmp_path).exact
        kinds = [Checkpoint(base, exact), Checkpoint(base, exact, 0), Checkpoint(base, exact, 0, 0)]
        rows = []
        for kind in kinds:
            reference = QuantizedReference((kind, kind, kind))
            rows.append(reference.base.read(reference.prepare("Hi")))
        assert not torch.equal(rows[0], rows[1])
        assert torch.equal(rows[1], rows[2]), "a text is not seen by the tower"

    @pytest.mark.parametrize("is_fa3", [False, True])
    def test_the_oracles_attention_rounds_and_does_nothing_else(self, is_fa3, base, tmp_path):
        """With numbers kept as they are, it is that of `transformers`; Triton's reads a prompt before it is rounded."""
        kind = in_16_bits(base, tmp_path)
        plain, kept, in_8_bits = (
            QuantizedReference((kind,) * 3, kv_dtype, is_fa3) for kv_dtype in (None, torch.float32, torch.float8_e4m3fn)
        )
        prompt = "What do you see? " * 8
        rows = [oracle.fused_logits(prompt, [], [5, 7, 9], alpha=0.5) for oracle in (plain, kept, in_8_bits)]
        torch.testing.assert_close(rows[1], rows[0], atol=1e-4, rtol=1e-4)
        far = (rows[2] - rows[0]).nan_to_num().abs().amax(-1) > 1e-3  # ids that are no token are -inf
        assert far.tolist() == [is_fa3, True, True, True]


def sglang_says(leaves_out, name):
    """A layer of which it leaves out a part ends its start."""
    try:
        return leaves_out(name)
    except ValueError:
        return False


def left_out_by(config):
    from sglang.srt.layers.quantization.awq.awq import is_layer_skipped_awq
    from sglang.srt.layers.quantization.compressed_tensors.utils import should_ignore_layer
    from sglang.srt.layers.quantization.fp8 import Fp8Config
    from sglang.srt.layers.quantization.gptq import GPTQConfig
    from sglang.srt.layers.quantization.utils import get_dynamic_override, is_layer_skipped
    from sglang.srt.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration as Model

    match config["quant_method"]:
        case "awq":
            return lambda name: is_layer_skipped_awq(name, config["modules_to_not_convert"])
        case "gptq":
            return lambda name: get_dynamic_override(GPTQConfig.from_config(config), name) is False
        case "fp8":
            fp8 = Fp8Config.from_config(config)
            fp8.apply_weight_name_mapper(Model.hf_to_sglang_mapper)
            return lambda name: is_layer_skipped(name, fp8.ignored_layers, Model.packed_modules_mapping)
    ignore = Model.hf_to_sglang_mapper.apply_list(config["ignore"])
    return lambda name: should_ignore_layer(name, ignore, Model.packed_modules_mapping)


class TestAgreement:
    """Numbers that an oracle might say: rounding moves them by 0.4, and 16 bits by a hundredth of that."""

    finer, *noise = torch.randn(3, 200, generator=torch.Generator().manual_seed(1))
    own, another = finer + 0.4 * noise[0], finer + 0.4 * noise[1]
    some, none = torch.full((200,), 0.4), torch.zeros(200)

    @pytest.mark.parametrize(("served", "is_cache_alone"), [(own + 0.05, True), (another, False)])
    def test_what_rounds_as_much_agrees(self, served, is_cache_alone):
        assert_agree(Tokens(served, self.own, self.finer, self.some, self.some), 0.1, 0.1, is_cache_alone)

    @pytest.mark.parametrize(("served", "is_cache_alone", "says"), [
        (finer + 0.004, False, "times as far as rounding"),  # it rounds nothing
        (finer + 1.5 * (own - finer), False, "times as far as rounding"),  # it has other weights
        (another, True, "is another's"),
    ])  # fmt: skip
    def test_what_does_not_is_told(self, served, is_cache_alone, says):
        with pytest.raises(AssertionError, match=says):
            assert_agree(Tokens(served, self.own, self.finer, self.none, self.some), 0.1, 0.1, is_cache_alone)

    def test_a_token_that_rounding_does_not_explain_is_told(self):
        below = torch.where(torch.arange(200) == 7, 2.4, self.none)
        with pytest.raises(AssertionError, match="6.0 times below the greatest"):
            assert_agree(Tokens(self.another, self.own, self.finer, below, self.some), 0.1, 0.1)

    @pytest.mark.parametrize(("off", "below"), [(0.2, 0.0), (0.0, 0.2)])
    def test_where_nothing_is_rounded_in_a_step_each_number_counts(self, off, below):
        one = (torch.arange(200) == 7).float()
        tokens = Tokens(self.own + off * one, self.own, self.own, below * one, self.none)
        assert_agree(tokens, 0.3, 0.3)
        with pytest.raises(AssertionError):
            assert_agree(tokens, 0.1, 0.1)


def test_rounding_has_a_scale_for_each_share():
    values = torch.tensor([[448.0, 1.03, 1e-3, 2e-3], [4.48, 0.0103, 0.0, 0.0]])
    # Between 1 and 2 numbers of three binary digits are 1/8 apart; the smallest one is 2 ** -9.
    assert torch.equal(rounded(values, 0)[0], torch.tensor([448.0, 1.0, 0.001953125, 0.001953125]))
    assert torch.allclose(rounded(values, 2)[0, 2:], values[0, 2:], rtol=0.04)
    assert torch.allclose(rounded(values, 0)[1, :2], torch.tensor([4.48, 0.01]))
