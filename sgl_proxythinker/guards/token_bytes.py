"""The bytes that a token stands for: of byte-level vocabularies a token may be a part of a character."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


def token_bytes(tokenizer: Any, token_id: int) -> bytes:
    """The UTF-8 bytes of one token; joined over an answer's tokens they are the bytes of its text.

    Args:
        tokenizer: a Hugging Face tokenizer. One that isn't byte-level gives what the token decodes to.
        token_id: an id; b"" if the tokenizer doesn't know it.
    """
    return _reader(tokenizer)(token_id)


def is_byte_level(tokenizer: Any) -> bool:
    """Whether its tokens are bytes of a text, whatever stands beside them."""
    return type(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)).__name__ == "ByteLevel"


@lru_cache(maxsize=4)
def _reader(tokenizer: Any):
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    of_character = {character: byte for byte, character in bytes_to_unicode().items()}
    added = {token_id: token.content for token_id, token in tokenizer.added_tokens_decoder.items()}
    spells_bytes = is_byte_level(tokenizer)

    @lru_cache(maxsize=1 << 16)
    def read(token_id: int) -> bytes:
        if token_id in added:
            return added[token_id].encode()
        if spells_bytes:
            token = tokenizer.convert_ids_to_tokens(token_id) or ""
            if all(character in of_character for character in token):
                return bytes(of_character[character] for character in token)
        return tokenizer.decode([token_id]).encode()

    return read
