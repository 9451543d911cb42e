"""From token ids to the text that each of them adds, where one character may take several tokens."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from itertools import groupby

Decode = Callable[[list[list[int]]], list[str]]

# What a tokenizer gives for bytes that are no character, or none yet.
INCOMPLETE = "\ufffd"


def token_texts(ids: list[int], decode: Decode) -> list[str]:
    """The text that each token adds.

    Args:
        ids: of one answer, in order.
        decode: the server's tokenizer: sequences of ids -> their texts.

    Returns:
        As many texts as ids; joined, they are the answer. A character that is split over tokens stands whole at the
        last of them, and the others have "".
    """
    texts = decode([[one] for one in ids])
    for start, end in _runs(INCOMPLETE in text for text in texts):
        texts[start:end] = _split_run(decode([ids[start:stop] for stop in range(start + 1, end + 1)]))
    return texts


def _runs(flags: Iterator[bool]) -> Iterator[tuple[int, int]]:
    """[start, end) of each stretch of true flags."""
    for wanted, run in groupby(enumerate(flags), key=lambda item: item[1]):
        if wanted:
            places = [place for place, _ in run]
            yield places[0], places[-1] + 1


def _split_run(prefixes: list[str]) -> list[str]:
    """What each prefix adds to the one before, from the texts of a run's prefixes; the last one is whole."""
    texts, told = [], 0
    for prefix in prefixes[:-1]:
        # What stands at the end may still become another character.
        sure = max(told, len(prefix.rstrip(INCOMPLETE)))
        texts.append(prefix[told:sure])
        told = sure
    return [*texts, prefixes[-1][told:]]


def visible(text: str) -> str:
    """Text in which nothing is hidden from a reader or turns the page around; line ends and tabs stay."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    code = ord(character)
    if character in "\n\t":
        return character
    if code < 0x20:
        return chr(0x2400 + code)  # the control picture, as in ␀
    if code == 0x7F:
        return "␡"
    # Directions of writing and invisible characters; joiners are part of scripts and of emoji.
    if unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp") and character not in "\u200c\u200d":
        return f"⟨U+{code:04X}⟩"
    return character
