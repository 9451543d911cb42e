"""mathruler's comparison of two answers, as the paper's scripts use it, without evaluating what a model wrote.

mathruler 0.1.0 (hiyouga/MathRuler, after OpenAI's prm800k) compares texts in two normal forms, and if they differ the
values that sympy gives them, by Python's `eval`. The forms here are its forms; values are compared by math-verify.
"""

from __future__ import annotations

import re

from sgl_proxythinker.answers import same_answer

MOST_CHARACTERS = 300  # of what is worked out; nobody asks for a longer expression

_UNITS = re.compile(
    r"(?:degree|cm|centimeter|meter|mile|second|minute|hour|day|week|month|year|foot|feet|inch|yard)"
    r"(?:es)?s? *(?:\^[0-9]+)?"
)
_SCALES = {"million": "*10^6", "billion": "*10^9", "trillion": "*10^12"}
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_TEXT = re.compile(r"\\text\{(.+?)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_ROOT = re.compile(r"\\sqrt\s*\{([^{}]*)\}")
_GROUP = re.compile(r"\\(?:text|mathrm|textbf|operatorname|mbox)\s*\{([^{}]*)\}")
_EXPRESSION = re.compile(r"-?[0-9a-z(.](?:[-+*/^().0-9a-z]*[0-9a-z)])?")
_SIGNS = {
    r"\pi": "pi", r"\infty": "inf", r"\cup": "U", r"\cdot": "*", r"\times": "*", r"\left": "", r"\right": "",
    r"\{": "", r"\}": "", r"\,": " ", r"\;": " ", r"\:": " ", r"\!": "", r"\ ": " ", r"\le": "≤", r"\ge": "≥",
    r"\approx": "≈", "√": "sqrt", "π": "pi", "∞": "inf", "×": "*", "·": "*",
}  # fmt: skip
_RATIO = re.compile(r"-?[0-9]+.?/0*[1-9][0-9]*.?")


def same_by_mathruler(claim: str, truth: str) -> bool:
    """Whether mathruler takes a claim for the truth.

    Where the truth is an integer, only the integer itself is it; a fraction has to be reduced as the truth is; and
    powers with more than one digit are not worked out.
    """
    if max(len(claim), len(truth)) > MOST_CHARACTERS:
        return claim == truth
    if _short_form(claim) == _short_form(truth):
        return True
    one, other = _normal_form(claim), _normal_form(truth)
    if one == other:
        return True
    if not one:
        return False
    ours, theirs = _elements(one), _elements(other)
    if len(ours) != len(theirs) or (len(theirs) > 1 and (one[0], one[-1]) != (other[0], other[-1])):
        return False
    return all(map(_same_element, ours, theirs))


def _same_element(one: str, other: str) -> bool:
    if _is_ratio(one) and _is_ratio(other):
        return one == other
    if _is_integer(one) != _is_integer(other):
        return False
    difference = f"({other})-({one})"
    letters = {sign for sign in difference.replace("sqrt", "").replace("frac", "") if sign.isalpha()}
    if len(letters) > 2 or "^(" in difference or re.search(r"\^[0-9]+\^|\^[0-9][0-9]+", difference):
        return False
    if not (_EXPRESSION.fullmatch(one) and _EXPRESSION.fullmatch(other)):
        return False  # no sum that Python could read
    return same_answer(_in_latex(one), _in_latex(other))


def _normal_form(text: str) -> str:
    whole = _TEXT.fullmatch(text)
    plain = whole.group(1) if whole else text
    plain = plain.replace("\\%", "%").replace("\\$", "$").replace("$", "").replace("%", "")
    plain = plain.replace(" or ", " , ").replace(" and ", " , ")
    for name, factor in _SCALES.items():
        plain = plain.replace(name, factor)
    plain = re.sub(r"\^ *\\circ", "", _UNITS.sub("", plain))
    if plain.startswith("{") and plain.endswith("}"):
        plain = plain[1:-1]
    plain = re.sub(r",\\! *", "", plain)
    if "\\" in plain:
        plain = _without_latex(plain)
    plain = re.sub(r"([0-9]) +([0-9])", r"\1+\2", re.sub("- *", "-", plain))  # 7 3/4
    plain = re.sub(r"[ {}]", "", plain).lower()
    return str(int(float(_THOUSANDS.sub("", plain)))) if _is_integer(plain) else plain


def _without_latex(text: str) -> str:
    plain = text
    for pattern, form in ((_GROUP, r"\1"), (_ROOT, r"sqrt(\1)"), (_FRACTION, r" \1/\2")):
        while (inner := pattern.sub(form, plain)) != plain:
            plain = inner
    for sign, name in _SIGNS.items():
        plain = (
            re.sub(rf"{re.escape(sign)}(?![A-Za-z])", name, plain) if sign[-1:].isalpha() else plain.replace(sign, name)
        )
    return plain.strip()


def _short_form(text: str) -> str:
    """The form of the MATH data set's own grader: without units behind it, degrees, spaces, "x =", a leading 0."""
    plain = text.strip()
    if whole := _TEXT.fullmatch(plain):
        plain = whole.group(1).strip()
    plain = plain.replace("\n", "").replace("\\!", "").replace("\\\\", "\\")
    plain = re.sub(r"\\[dt]frac", r"\\frac", plain).replace("\\left", "").replace("\\right", "")
    plain = re.sub(r"\^\{?\\circ\}?", "", plain).replace("\\$", "")
    plain = plain.split("\\text{ ")[0] if plain.count("\\text{ ") == 1 else plain
    plain = plain.replace("\\%", "").replace("%", "")
    plain = re.sub(r"(?<![0-9])\.(?=[0-9])", "0.", plain)
    name, mark, value = plain.partition("=")
    if mark and len(name) <= 2 and "=" not in value:
        plain = value
    plain = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", plain)
    plain = re.sub(r"\\sqrt(\w)", r"\\sqrt{\1}", plain).replace(" ", "")
    plain = "\\frac{1}{2}" if plain == "0.5" else plain
    return re.sub(r"^(-?\d+)/(\d+)$", r"\\frac{\1}{\2}", plain)


def _elements(text: str) -> list[str]:
    inside = text[1:-1]
    if len(text) > 2 and text[0] in "()[]" and text[-1] in "()[]" and not any(sign in inside for sign in "()[]"):
        return [part.strip() for part in _THOUSANDS.sub("", inside).split(",")]
    return [text]


def _is_integer(text: str) -> bool:
    try:
        value = float(_THOUSANDS.sub("", text))
        return abs(value - round(value)) <= 1e-7
    except (ValueError, OverflowError):
        return False


def _is_ratio(text: str) -> bool:
    return _RATIO.fullmatch(text) is not None


def _in_latex(text: str) -> str:
    plain = re.sub(r"\^(-?\d+)", r"^{\1}", re.sub(r"sqrt\(([^()]*)\)", r"\\sqrt{\1}", text))
    return re.sub(
        r"(?<![a-z\\])(pi|inf)(?![a-z])", lambda name: {"pi": r"\pi ", "inf": r"\infty "}[name.group(1)], plain
    )
