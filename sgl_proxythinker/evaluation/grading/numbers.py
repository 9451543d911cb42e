"""Numbers as people write them: with units, percent signs, separators of thousands, or as fractions."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from sgl_proxythinker.evaluation.grading.unwrapped import unwrapped

MOST_CHARACTERS = 80  # of a number with its unit; a longer text says something else

_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_POWER_OF_TEN = re.compile(r"\s*(?:\\times|\\cdot|×|·|\*)\s*10\s*\^\s*\{?\s*([-+]?\d{1,2})\s*\}?(?!\d)")
_EQUALITY = re.compile(r"^[^=≈:,;]*(?:=|≈|\\approx|\\simeq|:)\s*")  # "x = 5", "7 - 2 = 5", "≈ 5"
_CURRENCY = re.compile(r"^(?:\$|€|£|¥|RMB|USD)\s*|(?<=[-+])(?:\$|€|£|¥)\s*")
_THOUSANDS = re.compile(r"(?<=\d)[, ](?=\d{3}(?!\d))")
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,2})?"
# What may stand behind a number: a unit of a few words, but no other number.
_WITH_UNIT = re.compile(
    rf"({_NUMBER})(?:\s*/\s*(\d+))?\s*(%|percent\b)?\s*((?:[^\d\s=]+\s*){{0,3}}(?:\^\{{?-?[23]\}}?)?)\.?"
)
_DEGREES = re.compile(r"\^\{?\\circ\}?|\\degree|degrees?|°")
_SPELLED = {
    "meters": "m", "metres": "m", "meter": "m", "metre": "m", "centimeters": "cm", "centimetres": "cm",
    "kilometers": "km", "kilometres": "km", "millimeters": "mm", "inches": "in", "feet": "ft", "grams": "g",
    "kilograms": "kg", "seconds": "s", "minutes": "min", "hours": "h", "dollars": "$", "units": "", "unit": "",
}  # fmt: skip


class Number(NamedTuple):
    """What a text says."""

    value: Fraction
    is_percentage: bool
    unit: str  # "" without

    def may_be_in(self, unit: str) -> bool:
        """A unit that only one of two texts has is none that they differ by."""
        return not self.unit or not unit or self.unit == unit


def number_in(claim: str) -> Number | None:
    """The one number that a claim says; None where it says none, or several."""
    if len(claim) > MOST_CHARACTERS:
        return None
    plain = _POWER_OF_TEN.sub(r"e\1", _FRACTION.sub(r"\1/\2", _DEGREES.sub("°", unwrapped(claim))))
    plain = _THOUSANDS.sub("", _CURRENCY.sub("", _EQUALITY.sub("", plain))).strip()
    found = _WITH_UNIT.fullmatch(plain)
    if found is None:
        return None
    number, divisor, percent, unit = found.groups()
    if divisor is not None and int(divisor) == 0:
        return None
    return Number(Fraction(number) / int(divisor or 1), percent is not None, _short(unit))


def same_number(claim: str, answer: str, decimal_places: int | None) -> bool:
    """Whether a claim says a number, to so many decimal places (None: exactly), and in no other unit.

    A percentage may stand for itself or for its hundredth: 45 % is the answer where 45 is, and where 0.45 is.
    """
    said, truth = number_in(claim), number_in(answer)
    if said is None or truth is None or not said.may_be_in(truth.unit):
        return False
    within = Fraction(0) if decimal_places is None else Fraction(1, 2 * 10**decimal_places)
    values = {said.value}
    if said.is_percentage != truth.is_percentage:
        values.add(said.value / 100 if said.is_percentage else said.value * 100)
    return any(abs(value - truth.value) <= within for value in values)


def same_numbers(claim: str, answer: str) -> bool:
    """Whether a claim says the numbers of a list, in its order: "[3, 5]", "3, 5", "3 and 5"."""
    said, truth = _numbers(claim), _numbers(answer)
    return truth is not None and said == truth


def _numbers(text: str) -> list[Fraction] | None:
    plain = unwrapped(text)
    if plain[:1] in ("[", "(", "{") and plain[-1:] in ("]", ")", "}"):
        plain = plain[1:-1]
    numbers = [number_in(part) for part in re.split(r"[,;，、]|\band\b", plain) if part.strip()]
    values = [number.value for number in numbers if number is not None]
    return values if values and len(values) == len(numbers) else None


def _short(unit: str) -> str:
    plain = unit.strip().rstrip(".").replace("²", "^2").replace("³", "^3").replace("{", "").replace("}", "")
    return " ".join(_SPELLED.get(word.lower(), word) for word in plain.split())
