"""Laws of the text that each token adds, with a tokenizer that makes several tokens of one character."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sgl_proxythinker import tiny_family
from sgl_proxythinker.guards.token_bytes import token_bytes
from sgl_proxythinker.programs.token_texts import INCOMPLETE, token_texts, visible

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


@pytest.fixture(scope="module", params=["random", "tiny family"])
def any_tokenizer(request):
    if request.param == "random":
        return request.getfixturevalue("tokenizer")
    return AutoTokenizer.from_pretrained(tiny_family.BASE)


@st.composite
def answers(draw: st.DrawFn, tokenizer) -> list[int]:
    """Ids of texts, of any ids, of special tokens, and of characters that end too early, in any order."""
    any_id = st.integers(0, len(tokenizer) - 1)
    special = st.sampled_from(sorted(tokenizer.added_tokens_decoder))
    text = st.text(max_size=8).map(lambda written: tokenizer.encode(written, add_special_tokens=False))
    # Past ASCII a character is several tokens, or one where a vocabulary has merged it.
    part = st.tuples(text, st.integers(1, 3)).map(lambda drawn: drawn[0][: -drawn[1]])
    of_one = st.one_of(any_id, special).map(lambda token: [token])
    pieces = draw(st.lists(st.one_of(text, part, of_one, st.lists(any_id, max_size=6)), max_size=8))
    return [token for piece in pieces for token in piece]


@settings(max_examples=100)
@given(data=st.data())
def test_of_any_tokens_nothing_is_lost_or_told_twice(any_tokenizer, data):
    """As many texts as tokens, which join to the text; whoever has read fewer tokens was told a beginning of it."""

    def decode(sequences):
        return [any_tokenizer.decode(ids, skip_special_tokens=False) for ids in sequences]

    ids = data.draw(answers(any_tokenizer))
    texts, [whole] = token_texts(ids, decode), decode([ids])
    assert len(texts) == len(ids) and "".join(texts) == whole
    # Another way to the same text: the bytes of each token.
    assert b"".join(token_bytes(any_tokenizer, token) for token in ids).decode(errors="replace") == whole
    for end in range(len(ids)):
        told = "".join(token_texts(ids[:end], decode)).rstrip(INCOMPLETE)
        assert whole.startswith(told), end


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
