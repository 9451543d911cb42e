"""Numbers as people write them: with units, percent signs, separators of thousands, or as fractions."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from sgl_proxythinker.evaluation.grading.units import unit_in
from sgl_proxythinker.evaluation.grading.unwrapped import named, unwrapped

MOST_CHARACTERS = 80  # of a number with its unit; a longer text says something else

_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_POWER_OF_TEN = re.compile(r"\s*(?:\\times|\\cdot|×|·|\*)\s*10\s*\^\s*\{?\s*([-+]?\d{1,2})\s*\}?(?!\d)")
_COMPUTATION = re.compile(r"^[-+*/×÷().\d\s]+=\s*(?=[^=]*$)")  # "7 - 2 = 5" comes to 5
_ABOUT = re.compile(r"^(?:≈|\\approx|\\simeq|(?:about|approximately|approx\.?|roughly|around)(?=\s))\s*", re.IGNORECASE)
_CURRENCY = re.compile(r"^(?:\$|€|£|¥|RMB|USD)\s*|(?<=[-+])(?:\$|€|£|¥)\s*")
_THOUSANDS = re.compile(r"(?<=\d)[, ](?=\d{3}(?!\d))")
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,2})?"
_WITH_UNIT = re.compile(rf"({_NUMBER})(?:\s*/\s*(\d+))?(?:\s*(%|percent\b))?(\s*)([^\s\d].*?)?\.?")
_DEGREES = re.compile(r"\^\{?\\circ\}?|\\degree")


class Number(NamedTuple):
    """What a text says."""

    value: Fraction
    is_percentage: bool
    unit: str  # "" without
    name: str  # of "x = 5"; "" without

    def is_said_of(self, other: Number) -> bool:
        """A unit or a name that only one of two texts has is none that they differ by."""
        pairs = ((self.unit, other.unit), (self.name, other.name))
        return all(not one or not another or one == another for one, another in pairs)


def number_in(claim: str) -> Number | None:
    """The one number that a claim says; None where it says none, or several, or more than a number."""
    if len(claim) > MOST_CHARACTERS:
        return None
    name, plain = named(_DEGREES.sub("°", unwrapped(claim)))
    plain = _POWER_OF_TEN.sub(r"e\1", _FRACTION.sub(r"\1/\2", _ABOUT.sub("", _COMPUTATION.sub("", plain))))
    plain = _THOUSANDS.sub("", _CURRENCY.sub("", plain)).strip()
    found = _WITH_UNIT.fullmatch(plain)
    if found is None:
        return None
    number, divisor, percent, space, behind = found.groups()
    unit = unit_in(behind or "", is_glued=not space)
    if unit is None or (divisor is not None and int(divisor) == 0):
        return None
    return Number(Fraction(number) / int(divisor or 1), percent is not None, unit, name)


def same_number(claim: str, answer: str, decimal_places: int | None) -> bool:
    """Whether a claim says a number, to so many decimal places (None: exactly), and in no other unit.

    A percentage stands for itself where the answer is in percent, and for its hundredth where that is below 1: 45 % is
    the answer where 45 is, and where 0.45 is.
    """
    said, truth = number_in(claim), number_in(answer)
    if said is None or truth is None or not said.is_said_of(truth):
        return False
    value = said.value
    if said.is_percentage and not truth.is_percentage and abs(truth.value) < 1:
        value /= 100
    elif truth.is_percentage and not said.is_percentage and abs(value) < 1 <= abs(truth.value):
        value *= 100
    within = Fraction(0) if decimal_places is None else Fraction(1, 2 * 10**decimal_places)
    return abs(value - truth.value) <= within


def same_numbers(claim: str, answer: str) -> bool:
    """Whether a claim says the numbers of a list, in its order and of one unit: "[3, 5]", "3, 5", "3 and 5"."""
    said, truth = _numbers(claim), _numbers(answer)
    if not said or not truth or len({number.unit for number in said}) > 1:
        return False
    return [number.value for number in said] == [number.value for number in truth]


def _numbers(text: str) -> list[Number] | None:
    plain = unwrapped(text)
    if plain[:1] in ("[", "(", "{") and plain[-1:] in ("]", ")", "}"):
        plain = plain[1:-1]
    numbers = [number_in(part) for part in re.split(r"[,;，、]|\band\b", plain) if part.strip()]
    return None if None in numbers else [number for number in numbers if number is not None]
