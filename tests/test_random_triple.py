"""Laws of the tiny random models and of the three-model oracle that every server test compares with."""

import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from sgl_proxythinker.programs import random_triple, reference_hf
from sgl_proxythinker.programs.random_models.size import Size
from sgl_proxythinker.programs.random_models.tokenizer import SPECIAL_TOKENS, make_tokenizer
from sgl_proxythinker.programs.random_triple import ROLES, UNEQUAL, make_triple
from sgl_proxythinker.programs.reference_hf import Reference

pytestmark = pytest.mark.heavy

NEW_TOKENS = 24
TINY = dict.fromkeys(ROLES, Size(layers=1, vision_layers=1, mlp=64, vision_mlp=64))


@pytest.fixture(scope="module")
def triple(tmp_path_factory):
    return make_triple(tmp_path_factory.mktemp("triple"))


@pytest.fixture(scope="module")
def reference(triple):
    return Reference(triple.base, triple.expert, triple.amateur)


def open_reference(triple):
    return Reference(triple.base, triple.expert, triple.amateur)


def noise(seed, width=56, height=56):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def plain(color, width=56, height=56):
    return Image.new("RGB", (width, height), color)


def ask(text, images=1):
    return [{"role": "user", "content": [{"type": "image"}] * images + [{"type": "text", "text": text}]}]


TURNS = [
    {"role": "system", "content": "Think step by step."},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is in the first picture?"}]},
    {"role": "assistant", "content": "A triangle."},
    {"role": "user", "content": [{"type": "text", "text": "And here: "}, {"type": "image"}, {"type": "image"}]},
]

PROMPTS = {
    "text": (ask("How many?", 0), []),
    "one picture": (ask("How many?"), [noise(1)]),
    "two shapes": (ask("Compare them.", 2), [noise(1, 168, 84), plain("red", 56, 140)]),
    "three pictures in two turns": (TURNS, [noise(2), plain("blue", 112, 112), noise(3, 84, 56)]),
}


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The triple


@pytest.mark.parametrize("text", ["<think> Wait, 3 + 4 = 7.\n\n</think>", "é 漢字 🙂\ttab", "", "<|im_start|>user\nhi"])
def test_any_text_survives_the_tokenizer(text):
    tokenizer = make_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_only_qwens_special_tokens_are_special(reference):
    tokenizer = reference.tokenizer
    assert len(tokenizer) == 360
    assert set(SPECIAL_TOKENS) == set(tokenizer.all_special_tokens)
    assert [tokenizer.encode(token) for token in SPECIAL_TOKENS] == [[index] for index in range(346, 360)]
    assert len(tokenizer.encode("<think>")) > 1


def test_same_seed_same_bytes(tmp_path):
    make_triple(tmp_path / "a", seed=1, sizes=TINY)
    make_triple(tmp_path / "b", seed=1, sizes=TINY)
    make_triple(tmp_path / "c", seed=2, sizes=TINY)
    first, again, other = (files_of(tmp_path / name) for name in "abc")
    assert first == again
    weights = [name for name in first if name.endswith("safetensors")]
    assert len(weights) == 3
    assert len({content[name] for content in (first, other) for name in weights}) == 6


def test_equal_proxies_are_byte_identical(tmp_path):
    triple = make_triple(tmp_path, sizes=TINY, equal_proxies=True)
    assert files_of(triple.expert) == files_of(triple.amateur)
    assert files_of(triple.expert) != files_of(triple.base)


def test_equal_towers_are_the_experts_and_nothing_else_changes(tmp_path):
    usual = make_triple(tmp_path / "usual", sizes=TINY)
    equal = make_triple(tmp_path / "equal", sizes=TINY, equal_towers=True)
    assert files_of(usual.base) == files_of(equal.base) and files_of(usual.expert) == files_of(equal.expert)
    folders = usual.amateur, equal.expert, equal.amateur
    own, expert, amateur = (load_file(folder / "model.safetensors") for folder in folders)
    assert own.keys() == amateur.keys()
    for name, weight in amateur.items():
        assert torch.equal(weight, (expert if name.startswith("visual.") else own)[name]), name
    assert not torch.equal(own["visual.merger.mlp.2.weight"], amateur["visual.merger.mlp.2.weight"])


def test_transformers_finds_every_weight_and_no_other(tmp_path):
    """A name that is not known is skipped in silence, by SGLang too: the model would run on what memory held."""
    triple = make_triple(tmp_path, sizes=UNEQUAL, dtype="bfloat16")
    for folder, hidden, kv_heads in ((triple.base, 256, 4), (triple.expert, 128, 2)):
        model, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
        assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert model.dtype == torch.bfloat16
        text = model.config.text_config
        assert (text.hidden_size, text.num_key_value_heads) == (hidden, kv_heads)
        assert text.rope_parameters["mrope_section"] == [4, 6, 6]
        assert not model.config.tie_word_embeddings


def test_ids_in_the_configs_are_the_tokenizers(triple, reference):
    config = json.loads((triple.base / "config.json").read_text())
    for key, token in (("image_token_id", "<|image_pad|>"), ("vision_start_token_id", "<|vision_start|>")):
        assert config[key] == reference.tokenizer.convert_tokens_to_ids(token)
    assert config["eos_token_id"] == reference.tokenizer.eos_token_id
    assert reference.end_ids == {reference.tokenizer.convert_tokens_to_ids("<|im_end|>")}


def test_the_base_has_more_rows_unless_asked_otherwise(tmp_path, triple):
    other = make_triple(tmp_path, sizes=TINY, head_rows={"base": 360, "expert": 512})
    for folders, rows in ((triple, (448, 384, 384)), (other, (360, 512, 384))):
        heads = [load_file(getattr(folders, role) / "model.safetensors")["lm_head.weight"] for role in ROLES]
        assert tuple(map(len, heads)) == rows
        assert not any(head[360:].any() for head in heads), "padding rows have logits"


def test_wrong_requests_are_refused(tmp_path):
    with pytest.raises(ValueError, match="359.*360"):
        make_triple(tmp_path, head_rows={"base": 359})
    with pytest.raises(ValueError, match="bose"):
        make_triple(tmp_path, head_rows={"bose": 512})
    with pytest.raises(ValueError, match="different sizes"):
        make_triple(tmp_path, equal_proxies=True, head_rows={"expert": 512})
    with pytest.raises(ValueError, match="different sizes"):
        make_triple(tmp_path, equal_towers=True, sizes={"expert": Size(vision_layers=1)})
    with pytest.raises(ValueError, match="head_dim is 40"):
        Size(head_dim=40)


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [(56, 56, 4), (28, 28, 4), (112, 84, 12), (100, 150, 20), (224, 224, 64), (1000, 500, 55)],
)
def test_a_picture_is_4_to_64_tokens(reference, width, height, tokens):
    request = reference.prepare(ask("?"), [noise(0, width, height)])
    image_id = reference.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert (request.input_ids == image_id).sum() == tokens
    assert request.pictures["pixel_values"].shape == (tokens * 4, 1176)


# What the triple says


def test_text_keeps_changing_and_leaves_no_doubt(reference):
    """Random transformers like to repeat one token for ever; and a near tie would make comparing tokens a lottery."""
    gaps = []
    for (messages, images), alpha in itertools.product(PROMPTS.values(), (0.5, 1.5)):
        output = reference.generate(messages, images, alpha=alpha, max_new_tokens=NEW_TOKENS, stop_at_eos=False)
        assert len(set(output.token_ids)) > NEW_TOKENS // 2
        gaps += output.top2_gaps
    gaps = torch.tensor(gaps)
    assert gaps.min() > 1e-4
    assert (gaps < 1e-2).float().mean() < 0.03


def test_alpha_changes_the_answer(reference):
    messages, images = PROMPTS["one picture"]
    answers = [reference.generate(messages, images, alpha=a, max_new_tokens=8).token_ids for a in (0, 0.5, 1.5)]
    answers.append(reference.generate(messages, images, alpha=0.5, amateur_alpha=0, max_new_tokens=8).token_ids)
    assert len(set(map(tuple, answers))) == 4


def test_the_picture_changes_the_answer(reference):
    pictures = [noise(0), noise(1), plain("red"), plain("blue"), plain((50,) * 3), plain((200,) * 3), noise(0, 112, 56)]
    for alpha in (0.0, 0.5):
        answers = [
            reference.generate(ask("What is it?"), [picture], alpha=alpha, max_new_tokens=5).token_ids
            for picture in pictures
        ]
        assert len(set(map(tuple, answers))) == len(pictures)


def test_the_order_of_pictures_matters(reference):
    pictures = [noise(0), noise(1)]
    there = reference.generate(ask("?", 2), pictures, alpha=0.5, max_new_tokens=8)
    back = reference.generate(ask("?", 2), pictures[::-1], alpha=0.5, max_new_tokens=8)
    assert there.input_ids == back.input_ids
    assert there.token_ids != back.token_ids


# The oracle


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_cached_loop_equals_reading_everything_again(reference, prompt):
    messages, images = PROMPTS[prompt]
    output = reference.generate(messages, images, alpha=1.5, max_new_tokens=NEW_TOKENS, stop_at_eos=False)
    rows = reference.fused_logits(messages, images, output.token_ids[:-1], alpha=1.5)
    assert rows.shape == (NEW_TOKENS, 448)
    assert rows.argmax(-1).tolist() == output.token_ids
    logprobs = rows.log_softmax(-1)[range(NEW_TOKENS), output.token_ids]
    torch.testing.assert_close(torch.tensor(output.logprobs), logprobs, atol=2e-4, rtol=0)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_alpha_zero_is_what_transformers_generates_with_the_base(reference, prompt):
    messages, images = PROMPTS[prompt]
    ours = reference.generate(messages, images, alpha=0, max_new_tokens=NEW_TOKENS)
    text = reference.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = reference.processor(text=[text], images=images or None, return_tensors="pt")
    theirs = reference.base.model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS)[0].tolist()
    assert theirs == ours.input_ids + ours.token_ids


def test_a_request_leaves_nothing_for_the_next_one(reference):
    """M-RoPE's offset of a picture request, kept by transformers' model, must not move the text after it."""
    messages, _ = PROMPTS["text"]
    first = reference.generate(messages, alpha=0.5, max_new_tokens=NEW_TOKENS)
    reference.generate(*PROMPTS["three pictures in two turns"], alpha=0.5, max_new_tokens=2)
    assert reference.generate(messages, alpha=0.5, max_new_tokens=NEW_TOKENS) == first


def test_the_three_kinds_of_prompt_are_one(reference):
    messages, images = PROMPTS["two shapes"]
    text = reference.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    expected = reference.generate(messages, images, alpha=0.5, max_new_tokens=4)
    for prompt in (text, expected.input_ids):
        assert reference.generate(prompt, images, alpha=0.5, max_new_tokens=4) == expected
    urls = [{"type": "image_url", "image_url": {"url": "unread"}}] * 2 + messages[0]["content"][2:]
    openai = [{"role": "user", "content": urls}]
    assert reference.generate(openai, images, alpha=0.5, max_new_tokens=4) == expected


def test_the_formula(reference):
    messages, images = PROMPTS["one picture"]
    base, expert, amateur = reference.logits(messages, images, [5, 6])
    fused = reference.fused_logits(messages, images, [5, 6], alpha=0.8, amateur_alpha=0.3)
    assert base.shape == (3, 448) and expert.shape == amateur.shape == (3, 384)
    torch.testing.assert_close(fused[:, :360], base[:, :360] + 0.8 * expert[:, :360] - 0.3 * amateur[:, :360])
    assert (fused[:, 360:] == -torch.inf).all()


def test_equal_proxies_are_the_base_alone(tmp_path):
    reference = open_reference(make_triple(tmp_path, equal_proxies=True))
    messages, images = PROMPTS["one picture"]
    alone = reference.generate(messages, images, alpha=0, max_new_tokens=NEW_TOKENS)
    guided = reference.generate(messages, images, alpha=1.5, max_new_tokens=NEW_TOKENS)
    assert guided.token_ids == alone.token_ids


def test_padding_is_never_chosen(tmp_path):
    """The base's padding rows are made to win, and the expert has more rows than the base."""
    triple = make_triple(tmp_path, padding_wins=True, head_rows={"base": 448, "expert": 512})
    reference = open_reference(triple)
    messages, images = PROMPTS["one picture"]
    assert (reference.logits(messages, images)[0].argmax(-1) >= 360).all(), "the case is not made"
    output = reference.generate(messages, images, alpha=0.5, max_new_tokens=NEW_TOKENS, stop_at_eos=False)
    assert len(output.token_ids) == NEW_TOKENS and max(output.token_ids) < 360


def test_the_answer_ends_at_the_end_of_turn(reference, monkeypatch):
    messages, images = PROMPTS["one picture"]
    whole = reference.generate(messages, images, alpha=0.5, max_new_tokens=6, stop_at_eos=False).token_ids
    monkeypatch.setattr(reference, "end_ids", {whole[3]})
    assert reference.generate(messages, images, alpha=0.5, max_new_tokens=6).token_ids == whole[:4]
    assert reference.generate(messages, images, alpha=0.5, max_new_tokens=6, stop_at_eos=False).token_ids == whole


def test_the_command_lines_give_what_the_functions_give(tmp_path, capsys):
    random_triple.main([str(tmp_path), "--seed", "4", "--head-rows", "base=512", "--equal-proxies"])
    assert files_of(tmp_path / "expert") == files_of(tmp_path / "amateur")
    noise(5).save(tmp_path / "noise.png")
    capsys.readouterr()
    paths = [word for role in ROLES for word in (f"--{role}", str(tmp_path / role))]
    shown = ["--image", str(tmp_path / "noise.png"), "--question", "Why?"]
    reference_hf.main([*paths, *shown, "--alpha", "1", "--amateur-alpha", "0", "--max-tokens", "5", "--json"])
    printed = json.loads(capsys.readouterr().out)
    reference = Reference(*(tmp_path / role for role in ROLES))
    expected = reference.generate(ask("Why?"), [noise(5)], alpha=1, amateur_alpha=0, max_new_tokens=5)
    assert printed["token_ids"] == expected.token_ids
    assert printed["text"] == expected.text
