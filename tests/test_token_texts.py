"""Laws of the text that each token adds, with a tokenizer that makes several tokens of one character."""

from __future__ import annotations

import random

import pytest
from transformers import AutoTokenizer

from sgl_proxythinker.programs.token_texts import token_texts, visible

pytestmark = pytest.mark.xdist_group("guided")  # its triple is there

TEXTS = ["Hello you", "é", "漢字 und 🙂🙃!", "a\n\nb", "naïve café", "\u200d", "👨‍👩‍👧 family", ""]


@pytest.fixture(scope="module")
def tokenizer(triple):
    """Byte-level, as Qwen's, with few merges: most characters past ASCII take several tokens."""
    return AutoTokenizer.from_pretrained(triple.base)


@pytest.fixture
def decode(tokenizer):
    return lambda sequences: [tokenizer.decode(ids, skip_special_tokens=False) for ids in sequences]


@pytest.mark.parametrize("text", TEXTS)
def test_joined_they_are_the_answer(tokenizer, decode, text):
    ids = tokenizer.encode(text)
    texts = token_texts(ids, decode)
    assert len(texts) == len(ids) and "".join(texts) == text


def test_a_character_in_parts_stands_at_its_last_token(tokenizer, decode):
    ids = tokenizer.encode("x🙂y漢")
    texts = token_texts(ids, decode)
    assert [text for text in texts if text] == ["x", "🙂", "y", "漢"]
    assert len(ids) == 1 + 4 + 1 + 3, "the tokenizer must have split them, or nothing was tested"
    assert texts == ["x", "", "", "", "🙂", "y", "", "", "漢"]


def test_of_noise_nothing_is_lost_or_told_twice(tokenizer, decode):
    """Bytes that are no character, whole characters and special tokens in any order."""
    generator = random.Random(5)
    for _ in range(200):
        ids = [generator.randrange(len(tokenizer)) for _ in range(generator.randrange(40))]
        texts = token_texts(ids, decode)
        assert len(texts) == len(ids) and "".join(texts) == decode([ids])[0]


def test_the_tokenizer_is_asked_a_few_times_however_long_the_answer(tokenizer, decode):
    calls = []
    ids = tokenizer.encode("Some words. " * 50 + "🙂")
    token_texts(ids, lambda sequences: calls.append(sequences) or decode(sequences))
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("\x00\x1b\r\x7f", "␀␛␍␡"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\u2028\ufeff\x85", "⟨U+2028⟩⟨U+FEFF⟩⟨U+0085⟩"),
        ("👨‍👩‍👧 שלום", "👨‍👩‍👧 שלום"),
    ],
)
def test_what_would_hide_or_turn_the_page_around_is_shown(text, shown):
    assert visible(text) == shown
