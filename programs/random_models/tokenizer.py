"""A byte-level BPE tokenizer of a few hundred ids, as Qwen's and Llama 3's are, and what a checkpoint says about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
END_OF_TURN = "<|im_end|>"

TEXT_TOKENS = 346  # 256 bytes, so that any text encodes, and 90 merges; the special tokens come after them

# Qwen2.5's own way to split text into words before the byte pairs are merged.
WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

MERGE_TEXT = """
You are a helpful assistant. Look at the picture and answer the question step by step.
What is shown in the image? How many objects are there? Which of the two images is the larger one?
Let me think about this. Wait, I should check that again: the angle between the lines is not given in the figure.
First, find the area of the triangle. Then the answer is the sum of the two sides, so the final answer is the number.
The question asks for the value of the function. There is another way to see that the answer is right.
"""

CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Llama 3's; a text begins with the first, which its tokenizer adds by itself and its chat template writes.
LLAMA_TOKENS = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
)  # fmt: skip
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n{{ message['content'] | trim }}<|eot_id|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


@dataclass(frozen=True)
class Vocabulary:
    """The special tokens of a family, and how its chats are written."""

    special_tokens: tuple[str, ...]
    end_of_turn: str
    padding: str
    template: str
    tokenizer_class: str
    begins_with: str | None = None  # a token that the tokenizer puts before every text


QWEN = Vocabulary(SPECIAL_TOKENS, END_OF_TURN, "<|endoftext|>", CHAT_TEMPLATE, "Qwen2Tokenizer")
LLAMA = Vocabulary(
    LLAMA_TOKENS, "<|eot_id|>", "<|end_of_text|>", LLAMA_TEMPLATE, "PreTrainedTokenizerFast", "<|begin_of_text|>"
)


def make_tokenizer(
    texts: Iterable[str] = MERGE_TEXT.splitlines(keepends=True),
    tokens: int = TEXT_TOKENS,
    vocabulary: Vocabulary = QWEN,
) -> Tokenizer:
    """Byte-level BPE as Qwen2.5 has it, special tokens last. Any text encodes, and text in NFC decodes to itself.

    Args:
        texts: what the merges are learned from.
        tokens: 256 bytes and the merges, without the special tokens; fewer if the texts hold no more to merge.
        vocabulary: the special tokens.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, BpeTrainer(vocab_size=tokens, initial_alphabet=alphabet, show_progress=False))
    special_tokens = vocabulary.special_tokens
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens])
    if first := vocabulary.begins_with:
        tokenizer.post_processor = TemplateProcessing(
            single=f"{first} $A", pair=f"{first} $A {first} $B", special_tokens=[(first, tokenizer.token_to_id(first))]
        )
    return tokenizer


def generation_config(ids: Mapping[str, int], vocabulary: Vocabulary = QWEN) -> dict:
    # No temperature or penalty, unlike the published ones: SGLang makes them the defaults of every request.
    return {
        "bos_token_id": ids[vocabulary.begins_with or vocabulary.padding],
        "pad_token_id": ids[vocabulary.padding],
        "eos_token_id": [ids[vocabulary.end_of_turn]],
    }


def tokenizer_config(ids: Mapping[str, int], vocabulary: Vocabulary = QWEN) -> dict:
    added = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "tokenizer_class": vocabulary.tokenizer_class,
        "added_tokens_decoder": {str(index): {"content": token, **added} for token, index in ids.items()},
        "additional_special_tokens": [token for token in vocabulary.special_tokens if token != vocabulary.padding],
        "eos_token": vocabulary.end_of_turn,
        "pad_token": vocabulary.padding,
        "bos_token": vocabulary.begins_with,
        "unk_token": None,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "split_special_tokens": False,
        "model_max_length": 4096,
        "chat_template": vocabulary.template,
    }
