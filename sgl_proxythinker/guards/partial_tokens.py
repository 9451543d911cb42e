"""Logprobs of tokens that are a part of a character carry the bytes that they stand for.

SGLang takes the bytes from a token's text, which is U+FFFD for such a token: joined they are not the answer's text, and
of the top logprobs of a place only one such token is kept.
"""

from __future__ import annotations

from typing import Any

from sgl_proxythinker.guards.token_bytes import token_bytes

_UNREADABLE = "\ufffd"


class PartialToken(str):
    """U+FFFD for those who read text; it knows the token's bytes."""

    bytes: bytes


class _NamedBytes(str):
    """`bytes:\\xe2\\x80`, as OpenAI writes such a token; encoded, as chat does, it is the bytes themselves."""

    encoded: bytes

    def encode(self, *_: Any, **__: Any) -> bytes:
        return self.encoded


def remember_bytes(tokenizer: Any, tokens: list[tuple]) -> list[tuple]:
    """Let tokens that are a part of a character remember their bytes.

    Args:
        tokenizer: the server's.
        tokens: of each token its logprob, its id and its text.
    """
    return [
        (logprob, token_id, _partial(tokenizer, token_id, text)) if text and _UNREADABLE in text else entry
        for entry in tokens
        for logprob, token_id, text in [entry]
    ]


def name_bytes(tokens: list[tuple] | None) -> list[tuple] | None:
    """The same tokens with `bytes:...` for parts of characters, for OpenAI's routes."""
    if not tokens:
        return tokens
    return [
        (logprob, token_id, _named(text)) if isinstance(text, PartialToken) else entry
        for entry in tokens
        for logprob, token_id, text in [entry]
    ]


def _partial(tokenizer: Any, token_id: int, text: str) -> str:
    data = token_bytes(tokenizer, token_id)
    try:
        data.decode()
    except UnicodeDecodeError:
        text = PartialToken(text)
        text.bytes = data
    return text  # else the token is the character U+FFFD


def _named(text: PartialToken) -> str:
    readable = "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in text.bytes)
    named = _NamedBytes("bytes:" + readable)
    named.encoded = text.bytes
    return named
