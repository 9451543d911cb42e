"""What may stand behind a number without making it another one: a unit, or a word for what is counted."""

from __future__ import annotations

import re

_KNOWN = {
    "mm", "cm", "dm", "m", "km", "in", "ft", "yd", "mi", "mg", "g", "kg", "t", "lb", "lbs", "oz",
    "s", "sec", "ms", "min", "h", "hr", "hrs", "N", "kN", "J", "kJ", "W", "kW", "V", "mV", "A", "mA", "Hz", "kHz",
    "Pa", "kPa", "K", "mol", "L", "l", "mL", "ml", "rad", "°", "°C", "°F", "Ω", "kWh", "mph",
    "USD", "$", "€", "£", "¥", "RMB", "%",
}  # fmt: skip
_SPELLED = {
    "meters": "m", "metres": "m", "meter": "m", "metre": "m", "centimeters": "cm", "centimetres": "cm",
    "centimeter": "cm", "centimetre": "cm", "kilometers": "km", "kilometres": "km", "millimeters": "mm", "inches": "in",
    "inch": "in", "feet": "ft", "foot": "ft", "grams": "g", "kilograms": "kg", "seconds": "s", "minutes": "min",
    "hours": "h", "dollars": "$", "degrees": "°", "degree": "°", "radians": "rad", "radian": "rad", "units": "",
    "unit": "",
}  # fmt: skip
# Words behind a number that make it another one, or no number.
_NO_UNITS = frozenset(
    "or and to of by plus minus times over point half hundred thousand million billion trillion dozen pi sqrt root not "
    "wrong squared cubed than equals".split()
)
_PLAIN_WORD = re.compile(r"[A-Za-z]{3,}")
_CHINESE = re.compile(r"[\u4e00-\u9fff]{1,3}")
_POWER = re.compile(r"\^\{?([23])\}?$")


def unit_in(text: str, is_glued: bool) -> str | None:
    """A unit in its short form, "" for no text; None where the text is none.

    Args:
        is_glued: no space before it: a single letter there is a variable.
    """
    plain = text.strip().replace("²", "^2").replace("³", "^3")
    if not plain:
        return ""
    if is_glued and len(plain) == 1 and plain.isascii() and plain.isalpha():
        return None
    words = plain.split()
    if words[0].lower() in ("square", "cubic") and len(words) == 2:
        inner = _simple(words[1])
        return None if inner is None else f"{inner}^{2 if words[0].lower() == 'square' else 3}"
    if len(words) == 3 and words[1] == "per":
        words = [f"{words[0]}/{words[2]}"]
    if len(words) != 1:
        return None
    parts = [_simple(part) for part in words[0].split("/")]
    return None if len(parts) > 2 or None in parts else "/".join(str(part) for part in parts)


def _simple(word: str) -> str | None:
    power = _POWER.search(word)
    name = word[: power.start()] if power else word
    if not name or name.lower() in _NO_UNITS:
        return None
    short = _SPELLED.get(name.lower(), name)
    if short and short not in _KNOWN and not _PLAIN_WORD.fullmatch(short) and not _CHINESE.fullmatch(short):
        return None
    return f"{short}^{power.group(1)}" if power else short
