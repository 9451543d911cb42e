"""Small copies of the paper's five benchmarks, in the forms in which the Hub has them.

Questions and pictures are invented. Columns, types, file names and wordings are those of the data sets' cards and of
loaders of others; what could not be read there is marked as not verified. Every set has the things that a loader
stumbles over: see the comments at the rows.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import yaml
from datasets import Features, List, Value
from datasets import Image as PictureFeature
from PIL import Image, ImageDraw

_TEXT, _PICTURE = Value("string"), PictureFeature()

MATHVISTA = Features(
    {
        "pid": _TEXT,
        "question": _TEXT,
        "image": _TEXT,  # a path into images.zip
        "decoded_image": _PICTURE,
        "choices": List(_TEXT),
        "unit": _TEXT,
        "precision": Value("float64"),
        "answer": _TEXT,
        "question_type": _TEXT,
        "answer_type": _TEXT,
        "metadata": {
            "category": _TEXT,
            "context": _TEXT,
            "grade": _TEXT,
            "img_height": Value("int64"),
            "img_width": Value("int64"),
            "language": _TEXT,
            "skills": List(_TEXT),
            "source": _TEXT,
            "split": _TEXT,
            "task": _TEXT,
        },
        "query": _TEXT,
    }
)

MATHVERSE = Features(
    {
        "sample_index": _TEXT,
        "problem_index": _TEXT,
        "problem_version": _TEXT,
        "question": _TEXT,
        "image": _PICTURE,
        "answer": _TEXT,
        "question_type": _TEXT,
        "metadata": {"split": _TEXT, "source": _TEXT, "subject": _TEXT, "subfield": _TEXT},
        "query_wo": _TEXT,
        "query_cot": _TEXT,
        "question_for_eval": _TEXT,
    }
)
MATHVERSE_TEXT_ONLY = Features(dict(MATHVERSE) | {"image": _TEXT})

MATHVISION = Features(
    {
        "id": _TEXT,
        "question": _TEXT,
        "options": List(_TEXT),  # empty, where there are none
        "image": _TEXT,
        "decoded_image": _PICTURE,
        "answer": _TEXT,
        "solution": _TEXT,
        "level": Value("int64"),
        "subject": _TEXT,
    }
)

MMMU_PRO = Features(
    {
        "id": _TEXT,
        "question": _TEXT,
        "options": _TEXT,  # a list as Python writes it
        "explanation": _TEXT,
        **{f"image_{number}": _PICTURE for number in range(1, 8)},
        "img_type": _TEXT,  # a list as Python writes it
        "answer": _TEXT,
        "topic_difficulty": _TEXT,
        "subject": _TEXT,
    }
)
MMMU_PRO_VISION = Features({"id": _TEXT, "image": _PICTURE, "options": _TEXT, "answer": _TEXT, "subject": _TEXT})

# Its card names `choices`; loaders of others use the other six. Their order, and whether there are more, is not known.
R1_ONEVISION = ("index", "category", "level", "question", "choices", "answer", "image")

Rows = Sequence[Mapping[str, Any]]


def write_published_sets(folder: Path) -> dict[str, Path]:
    """Write the five data sets into a folder each.

    Returns:
        The folders, by the short names of the benchmarks. `datasets.load_dataset(str(folder), config, split=...)`
        reads them as it reads a download.
    """
    places = {
        "mathvista": folder / "MathVista",
        "mathverse": folder / "MathVerse",
        "mathvision": folder / "MathVision",
        "mmmu_pro": folder / "MMMU_Pro",
        "r1_onevision": folder / "R1-Onevision-Bench",
    }
    _write_mathvista(places["mathvista"])
    _write_mathverse(places["mathverse"])
    _write_mathvision(places["mathvision"])
    _write_mmmu_pro(places["mmmu_pro"])
    _write_r1_onevision(places["r1_onevision"])
    return places


# --- MathVista


def _write_mathvista(folder: Path) -> None:
    testmini, test = mathvista_testmini(), mathvista_test()
    _write_parquet(folder / "data/testmini-00000-of-00001-725687bf7a18d64b.parquet", testmini, MATHVISTA)
    # The real split is in two files as well.
    _write_parquet(folder / "data/test-00000-of-00002-6b81bd7f7e2065e6.parquet", test[:2], MATHVISTA)
    _write_parquet(folder / "data/test-00001-of-00002-6a611c71596db30f.parquet", test[2:], MATHVISTA)
    _write_card(
        folder,
        {"default": (MATHVISTA, {"testmini": ("data/testmini-*", len(testmini)), "test": ("data/test-*", len(test))})},
    )


def mathvista_testmini() -> Rows:
    return [
        _mathvista("1", "Which of the two rods is longer?", "multi_choice", "text", "B",
                   choices=["A", "B"], task="figure question answering", skills=["scientific reasoning"]),
        _mathvista("2", "How many red discs are left when two are taken away?", "free_form", "integer", "5",
                   task="math word problem", context="synthetic scene", grade="elementary school"),
        _mathvista("3", "Find the measure of ∠ABC.", "multi_choice", "text", "145°",
                   choices=["135°", "140°", "145°", "150°"], source="GeoQA+"),
        # The type of the answer is a number, the question has choices all the same.
        _mathvista("4", "What is the highest value of the chart?", "multi_choice", "integer", "12",
                   choices=["1", "12", "2", "112"], context="bar chart", task="figure question answering"),
        _mathvista("5", "How much does the apple cost?", "free_form", "float", "1.2", precision=1.0, unit="$",
                   context="table", task="math word problem"),
        _mathvista("6", "What share of the disc is dark?", "free_form", "float", "0.25", precision=2.0),
        _mathvista("7", "Between which two years does the line rise most?", "free_form", "list", "[2007, 2008]",
                   context="line plot", task="figure question answering"),
        # The text of one choice is within another one's; a letter "A" is a word of the second one.
        _mathvista("8", "Which shape is it?", "multi_choice", "text", "square",
                   choices=["square", "A square root", "not a square", "circle"], context="abstract scene"),
        # The same text twice: the first one counts as the answer.
        _mathvista("9", "Which value is the median?", "multi_choice", "text", "4",
                   choices=["3", "4", "4", "5"], context="scatter plot"),
        _mathvista("10", "如图，在△ABC中，∠A=50°，则∠B的度数为（）", "multi_choice", "text", "70°",
                   choices=["50°", "60°", "70°", "80°"], language="chinese", source="GeoQA+"),
        _mathvista("11", "What is the length of the diagonal?", "multi_choice", "text", "3\\sqrt{2}",
                   choices=["3", "3\\sqrt{2}", "3√3", "6"], source="Geometry3K"),
        # A choice that is missing. Not known of the real set; its type allows it.
        _mathvista("12", "Which bar is the lowest?", "multi_choice", "text", "green",
                   choices=["red", None, "green", "light green"], context="bar chart"),
        # Several questions in one.
        _mathvista("13", "(1) How many cubes are blue? (2) How many are not? Give both numbers.", "free_form", "list",
                   "[3, 4]", context="synthetic scene"),
        _mathvista("14", "How much older is the taller tree than the other one?", "free_form", "integer", "9",
                   unit="years", context="natural image", source="A-OKVQA", picture=_named(_cmyk_jpeg(), "14.jpg")),
        # The name says JPEG, the bytes are a PNG.
        _mathvista("15", "How many squares are there?", "free_form", "integer", "4",
                   picture=_named(png("4 squares"), "15.jpg")),
        _mathvista("16", "What is the value of x?", "free_form", "float", "-0.5", precision=1.0,
                   context="function plot", picture=_named(_palette_png(), "16.png")),
        _mathvista("17", "Is the number of cups even?", "multi_choice", "text", "No",
                   choices=["Yes", "No"], picture=_named(_turned_jpeg(), "17.jpg")),
        _mathvista("18", "Name the unit of the scale.", "free_form", "text", "kilogram",
                   picture=_named(png("kg", (9, 7)), "18.png")),
        _mathvista("19", "Which label is the third?", "multi_choice", "text", "C",
                   choices=["A", "B", "C", "D"], picture=_named(png("a strip", (900, 6)), "19.png")),
        _mathvista("20", "The curve's slope at x=1 is ____ its slope at x=3.", "multi_choice", "text", "the same as",
                   choices=["greater than", "the same as", "less than"], context="function plot",
                   picture=_named(_deep_grey_png(), "20.png")),
        # A text with what is a placeholder elsewhere: braces, a backslash, a line break.
        _mathvista("21", "Let S = {1, 2}.\nHow many subsets \\{a\\} ⊂ {question} does {choices} have?", "free_form",
                   "integer", "4", picture=_named(png("S"), None)),
        # All pictures are there in the real set.
        _mathvista("22", "What is 7 times 8?", "free_form", "integer", "56", has_picture=False),
    ]  # fmt: skip


def mathvista_test() -> Rows:
    """Its answers are not published; that they are empty texts there is not verified."""
    return [
        _mathvista("101", "How many discs are there?", "free_form", "integer", "", split="test"),
        _mathvista("102", "Which is larger?", "multi_choice", "text", "", choices=["left", "right"], split="test"),
        _mathvista("103", "What is the sum?", "free_form", "float", "", precision=1.0, split="test"),
    ]


_MATHVISTA_HINTS = {
    "integer": "requiring an integer answer and provide the final value, e.g., 1, 2, 3,",
    "float 1": "requiring a floating-point number with one decimal place and provide the final value, "
    "e.g., 1.2, 1.3, 1.4,",
    "float 2": "requiring a floating-point number with two decimal places and provide the final value, "
    "e.g., 1.23, 1.34, 1.45,",
    "list": "requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4],",
    "text": "and provide the final answer",
    "choice": "and provide the correct option letter, e.g., A, B, C, D,",
}


def _mathvista(
    pid: str,
    question: str,
    question_type: str,
    answer_type: str,
    answer: str,
    *,
    choices: Sequence[str | None] | None = None,
    unit: str | None = None,
    precision: float | None = None,
    picture: Mapping[str, Any] | None = None,
    has_picture: bool = True,
    context: str = "geometry diagram",
    task: str = "geometry problem solving",
    grade: str = "high school",
    language: str = "english",
    skills: Sequence[str] = ("geometry reasoning", "arithmetic reasoning"),
    source: str = "IQTest",
    split: str = "testmini",
) -> dict[str, Any]:
    hint = answer_type if precision is None else f"{answer_type} {precision:.0f}"
    lines = [
        f"Hint: Please answer the question {_MATHVISTA_HINTS['choice' if choices else hint]} at the end.",
        f"Question: {question}" + (f" (Unit: {unit})" if unit else ""),
    ]
    if choices:
        lines += ["Choices:", *(f"({_letter(place)}) {text}" for place, text in enumerate(choices))]
    picture = picture or _named(jpeg(question), f"{pid}.jpg")
    width, height = Image.open(io.BytesIO(picture["bytes"])).size
    picture = picture if has_picture else None
    return {
        "pid": pid, "question": question, "image": f"images/{pid}.jpg", "decoded_image": picture,
        "choices": choices, "unit": unit, "precision": precision, "answer": answer,
        "question_type": question_type, "answer_type": answer_type,
        "metadata": {
            "category": "math-targeted-vqa", "context": context, "grade": grade, "img_height": height,
            "img_width": width, "language": language, "skills": list(skills), "source": source, "split": split,
            "task": task,
        },
        "query": "\n".join(lines),
    }  # fmt: skip


# --- MathVerse


def _write_mathverse(folder: Path) -> None:
    testmini, text_only = mathverse_testmini(), mathverse_text_only()
    _write_parquet(folder / "testmini.parquet", testmini, MATHVERSE)
    _write_parquet(folder / "testmini_text_only.parquet", text_only, MATHVERSE_TEXT_ONLY)
    _write_card(
        folder,
        {
            "testmini": (MATHVERSE, {"testmini": ("testmini.parquet", len(testmini))}),
            "testmini_text_only": (
                MATHVERSE_TEXT_ONLY,
                {"testmini_text_only": ("testmini_text_only.parquet", len(text_only))},
            ),
        },
    )


_VERSIONS = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")

# Problem: question, its beginning that only "Text Dominant" has, answer, type, subject, subfield, picture.
_PROBLEMS: Sequence[tuple[str, str, str, str, str, str, Any]] = (
    ("the angle at the top of the roof is ()\nChoices:\nA:50°\nB:70°\nC:110°\nD:130°",
     "As shown in the figure, the sides of a roof are equal, each has an angle of 25.0 to the beam, so ", "D",
     "multi-choice", "Plane Geometry", "Angle", None),
    ("Find the length of AC.", "AB is a diameter of length 10 and BC = 6. ", "8", "free-form",
     "Plane Geometry", "Length", None),
    ("What is the volume of the cone?\nChoices:\nA:12 π cm^3\nB:12 cm^3\nC:36 π cm^3\nD:No correct answer",
     "The radius is 3 cm, the height 4 cm. ", "A", "multi-choice", "Solid Geometry", "Volume", "grey"),
    ("Find the domain. Give it as an interval.", "f(x) = √(x-2). ", "$[2,\\infty)$", "free-form",
     "Functions", "Function", "palette"),
    # The lines of the choices are written in another way than elsewhere.
    ("Which of these equals y?\nChoices:\nA: \\frac{1}{2}\nB: 0.5 x\nC: \\sqrt{2}\nD: -2", "Here x = 1. ", "A",
     "multi-choice", "Functions", "Coordinate", None),
    # And this is what a loader of others expects of some rows.
    ("Which length is it?\nChoice:\nA.5 cm\nB.5 m\nC.50 cm", "The rod is as long as the scale says. ", "B",
     "multi-choice", "Plane Geometry", "Length", None),
)  # fmt: skip


def mathverse_testmini() -> Rows:
    """Each problem five times. "Vision Only" has an empty `question`: all of it is in the picture."""
    return [
        _mathverse(5 * place + number, place, version)
        for place in range(len(_PROBLEMS))
        for number, version in enumerate(_VERSIONS, start=1)
    ]


def mathverse_text_only() -> Rows:
    """Without pictures: `image` is a text. That it is empty, and how the samples are numbered, is not verified."""
    return [_mathverse(place + 1, place, "Text Only") | {"image": ""} for place in range(len(_PROBLEMS))]


def _mathverse(sample: int, place: int, version: str) -> dict[str, Any]:
    asked, given, answer, question_type, subject, subfield, kind = _PROBLEMS[place]
    whole = given + asked
    question = {"Text Dominant": whole, "Text Only": whole, "Vision Only": ""}.get(version, asked)
    is_choice = question_type == "multi-choice"
    value = "the correct option letter, e.g., A, B, C, D" if is_choice else "the final value, e.g., 1, 2.5, 300"
    if version == "Vision Only":  # the words are those of loaders of others; their ends are not verified
        shown = "According to the question shown in the image, please"
        directly = f"{shown} directly answer the question and provide {value}."
        with_thought = f"{shown} first conduct reasoning, and then answer the question and provide {value}, at the end."
    else:
        directly = f"Please directly answer the question and provide {value}.\nQuestion: {question}"
        order = f"Please first conduct reasoning, and then answer the question and provide {value}, at the end."
        with_thought = f"{order}\nQuestion: {question}"
    name = f"images_version_{6 if version == 'Vision Only' else '1-4'}/image_{place + 1}.png"
    pictures = {"grey": _deep_grey_png, "palette": _palette_png}
    picture = png(whole if version == "Vision Only" else f"figure {place + 1}") if kind is None else pictures[kind]()
    return {
        "sample_index": str(sample), "problem_index": str(place + 1), "problem_version": version,
        "question": question, "image": _named(picture, name), "answer": answer, "question_type": question_type,
        "metadata": {"split": "testmini", "source": "GeoQA", "subject": subject, "subfield": subfield},
        "query_wo": directly, "query_cot": with_thought, "question_for_eval": whole,
    }  # fmt: skip


# --- MathVision


def _write_mathvision(folder: Path) -> None:
    test, testmini = mathvision_test(), mathvision_testmini()
    _write_parquet(folder / "data/test-00000-of-00001-3532b8d3f1b4047a.parquet", test, MATHVISION)
    _write_parquet(folder / "data/testmini-00000-of-00001-f8ff70fcb2f29b1d.parquet", testmini, MATHVISION)
    _write_card(
        folder,
        {"default": (MATHVISION, {"test": ("data/test-*", len(test)), "testmini": ("data/testmini-*", len(testmini))})},
    )


def mathvision_test() -> Rows:
    letters = ["A", "B", "C", "D", "E"]
    return [
        # The choices are drawn: their texts are their letters.
        _mathvision("3", "Which snail has the shortest way home?\n<image1>", letters, "C", 1,
                    "metric geometry - length"),
        _mathvision("4", "Which number did the cat hide?\n<image1>", [], "7", 1, "arithmetic"),
        _mathvision("5", "How long is the ribbon around the box?\n<image1>",
                    ["10 cm", "12 cm", "15 cm", "1 m", "2 m"], "B", 2, "metric geometry - length",
                    picture=_cmyk_jpeg()),
        _mathvision("8", "What is the area of the grey part?\n<image1>", ["$\\frac{1}{2}$", "$\\frac{1}{3}$",
                    "$\\frac{\\pi}{2}$", "$2$", "$\\sqrt{2}$"], "C", 3, "metric geometry - area"),
        # One column for two pictures: they are put together in one file.
        _mathvision("9", "The cube <image1> is unfolded. Which net <image2> is it?", letters, "E", 4,
                    "solid geometry"),
        _mathvision("12", "Three sides are $a$, $b$ and $\\sqrt{a^2+b^2}$.\n<image1>\nWhat is $\\sin\\alpha$ for "
                    "$a=3$, $b=4$?", [], "0.6", 5, "analytic geometry", picture=_turned_jpeg()),
        _mathvision("14", "How many degrees has the angle?\n<image1>", [], "$60^{\\circ}$", 2,
                    "metric geometry - angle"),
        _mathvision("17", "<image1>\nWhich piece fits?", ["1", "2", "3", "4", "12"], "E", 3, "combinatorial geometry",
                    picture=png("a strip", (600, 8))),
        _mathvision("21", "What is $f(2)$?\n<image1>", [], "-4", 4, "transformation geometry",
                    solution="We read off $f(2)=-4$."),
        # Equal texts: only the letter tells them apart.
        _mathvision("22", "Which sum is right?\n<image1>", ["4", "5", "5", "6", "7"], "C", 1, "arithmetic",
                    picture=png("5", (8, 8))),
        _mathvision("25", "How many paths lead from A to B?\n<image1>", [], "1,024", 5, "counting"),
        _mathvision("30", "What part is shaded?\n<image1>", [], "\\frac{3}{8}", 2, "arithmetic"),
    ]  # fmt: skip


def mathvision_testmini() -> Rows:
    """Questions of `test`, with the same ids."""
    return [row for row in mathvision_test() if row["id"] in {"4", "5", "8", "12", "14", "25", "30"}]


def _mathvision(
    name: str,
    question: str,
    options: Sequence[str],
    answer: str,
    level: int,
    subject: str,
    solution: str | None = None,
    picture: bytes | None = None,
) -> dict[str, Any]:
    return {
        "id": name, "question": question, "options": list(options), "image": f"images/{name}.jpg",
        "decoded_image": _named(picture or jpeg(question), f"{name}.jpg"), "answer": answer, "solution": solution,
        "level": level, "subject": subject,
    }  # fmt: skip


# --- MMMU-Pro


def _write_mmmu_pro(folder: Path) -> None:
    ten, four, vision = mmmu_pro_ten(), mmmu_pro_four(), mmmu_pro_vision()
    for config, rows in (("standard (10 options)", ten), ("standard (4 options)", four)):
        half = len(rows) // 2
        _write_parquet(folder / config / "test-00000-of-00002.parquet", rows[:half], MMMU_PRO)
        _write_parquet(folder / config / "test-00001-of-00002.parquet", rows[half:], MMMU_PRO)
    for number in range(4):
        _write_parquet(folder / "vision" / f"test-0000{number}-of-00004.parquet", vision[number::4], MMMU_PRO_VISION)
    _write_card(
        folder,
        {
            "standard (10 options)": (MMMU_PRO, {"test": ("standard (10 options)/test-*", len(ten))}),
            "standard (4 options)": (MMMU_PRO, {"test": ("standard (4 options)/test-*", len(four))}),
            "vision": (MMMU_PRO_VISION, {"test": ("vision/test-*", len(vision))}),
        },
    )


def mmmu_pro_ten() -> Rows:
    return [
        _mmmu_pro("validation_Accounting_1", "<image 1> What are the costs per unit?",
                  [f"${number}" for number in range(1, 11)], "F", [png("costs")], "Tables"),
        _mmmu_pro("test_History_256", "Who drew the map in <image 1>?",
                  ["Napoleon's officer", "a \"free\" monk", "O'Brien", "\\alpha", "nobody", "a baker", "a king",
                   "a queen", "an abbot", "a nun"], "C", [jpeg("map")], "Maps"),
        # The second picture is spoken of first, the first one twice.
        _mmmu_pro("test_Physics_12", "Compare <image 2> with <image 1>. Which force of <image 1> is larger?",
                  ["the left one", "the right one", "both", "none", "2 N", "3 N", "4 N", "5 N", "6 N", "7 N"], "B",
                  [png("one"), _cmyk_jpeg()], "Diagrams"),
        # Pictures are choices.
        _mmmu_pro("validation_Chemistry_12", "Which structure <image 1> belongs to the product?",
                  ["<image 2>", "<image 3>", "<image 4>", "<image 5>", "all of them", "none", "two", "three", "four",
                   "I don't know"], "D", [png(f"structure {number}") for number in range(1, 6)],
                  "Chemical Structures"),
        _mmmu_pro("test_Music_7", "How many beats has the bar? <image 1>", [str(number) for number in range(2, 12)],
                  "I", [_palette_png()], "Sheet Music", difficulty="Hard"),
        # The text does not say where the picture is: it is shown by nobody who follows the text alone.
        _mmmu_pro("test_Biology_31", "What does the picture show?",
                  ["leaf", "a leaf", "leaf vein", "root", "stem", "bud", "seed", "fruit", "bark", "moss"], "C",
                  [_turned_jpeg()], "Pictures"),
        # Fewer than ten, and one that is missing: the second is not known of the real set.
        _mmmu_pro("test_Math_64", "Let $x$ be as in <image 1>. What is $x^2$?", ["1", None, "4", "{9}", "√2"], "E",
                  [png("x = 2^(1/4)")], "Plots"),
        _mmmu_pro("test_Art_3", "Sort <image  1>, <image 7> and <image 3>.",
                  [f"order {number}" for number in range(10)], "J",
                  [png("1"), None, png("3"), None, None, None, jpeg("7")], "Paintings"),
        # Two choices read alike, several lines in a choice.
        _mmmu_pro("test_Economics_9", "Which policy fits <image 1>?",
                  ["tax", "tax", "no\ntax", "tax and tariff", "tariff", "subsidy", "quota", "ban", "none", "all"], "B",
                  [png("supply")], "Plots"),
        _mmmu_pro("validation_Pharmacy_198", "The dose in <image 1> is given in mg. How much is it in 2 h?",
                  ["0.5 mg", "5 mg", "50 mg", "50%", "1/2 mg", "500 µg", "5.0 mg", "0.05 g", "1,000 mg", "2 h"], "A",
                  [_deep_grey_png()], "Diagrams"),
    ]  # fmt: skip


def mmmu_pro_four() -> Rows:
    """The same questions with fewer choices, so that most letters are others."""
    return [
        _mmmu_pro("validation_Accounting_1", "<image 1> What are the costs per unit?", ["$6", "$7", "$8", "$9"], "A",
                  [png("costs")], "Tables"),
        _mmmu_pro("test_History_256", "Who drew the map in <image 1>?",
                  ["Napoleon's officer", "O'Brien", "a king", "an abbot"], "B", [jpeg("map")], "Maps"),
        _mmmu_pro("test_Physics_12", "Compare <image 2> with <image 1>. Which force of <image 1> is larger?",
                  ["the left one", "the right one", "both", "none"], "B", [png("one"), _cmyk_jpeg()], "Diagrams"),
    ]  # fmt: skip


def mmmu_pro_vision() -> Rows:
    """The questions with ten choices, each drawn as a screenshot; no column has its text."""
    return [
        {
            "id": row["id"],
            # Its files have no names in the real set, as far as loaders of others show.
            "image": _named(_screenshot(row, place), None),
            "options": row["options"], "answer": row["answer"], "subject": row["subject"],
        }
        for place, row in enumerate(mmmu_pro_ten())
    ]  # fmt: skip


def _screenshot(row: Mapping[str, Any], place: int) -> bytes:
    text = f"{row['question']}\n{row['options']}".encode("ascii", "replace").decode()
    return (jpeg if place % 2 else png)(text, (300, 200))


def _mmmu_pro(
    name: str,
    question: str,
    options: Sequence[str | None],
    answer: str,
    pictures: Sequence[bytes | None],
    kind: str,
    difficulty: str = "Medium",
) -> dict[str, Any]:
    held = {f"image_{number}": None for number in range(1, 8)}
    for number, picture in enumerate(pictures, start=1):
        if picture is not None:
            held[f"image_{number}"] = _named(picture, f"{name}_{number}.png")
    return {
        "id": name, "question": question, "options": repr(list(options)), "explanation": "", **held,
        "img_type": repr([kind]), "answer": answer, "topic_difficulty": difficulty,
        "subject": name.split("_")[1],
    }  # fmt: skip


# --- R1-Onevision-Bench


def _write_r1_onevision(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "r1-onevision.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, R1_ONEVISION, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(r1_onevision())
    # Without `configs` a file that belongs to no split is `train`.
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntask_categories:\n- question-answering\n---\n")


def r1_onevision() -> Rows:
    """Of 942 real ones 783 have choices; one has no answer."""
    return [
        _r1_onevision(0, "Math", "High School", "What is the slope of the line?", "B", ["1", "2", "-1", "12"]),
        _r1_onevision(1, "Math", "Junior High School", "What is the area of the field?", "24"),
        _r1_onevision(2, "Physics", "College", "Which current is larger?", "A", ["I_1", "I_2", "both", "none"]),
        _r1_onevision(3, "Chemistry", "High School", "Which gas is \"lighter\" than air?", "C",
                      ["CO_2", "O_2", "H_2", "Cl_2"], picture=_cmyk_jpeg()),
        # A field with tabs, quotes and line breaks.
        _r1_onevision(4, "Deduction", "Social Test", "Read the table:\na\tb\n\"1\"\t2\n\nWhat comes next?", "D",
                      ["A star", "B star", "a square", "star"]),
        _r1_onevision(5, "Math", "High School", "如图，求∠A的度数。", "60°"),
        _r1_onevision(6, "Math", "College", "What is the value of the integral?", "\\frac{\\pi}{2}"),
        # Without an answer: the paper's scripts leave it out.
        _r1_onevision(7, "Biology", "High School", "Which cell is it?", "", ["nerve", "muscle", "blood", "skin"]),
        _r1_onevision(8, "Physics", "High School", "What is the speed?", "2.5 m/s", picture=_turned_jpeg()),
        _r1_onevision(9, "Math", "Junior High School", "(1) Find a. (2) Find b.", "a = 3, b = √2"),
        _r1_onevision(10, "Biology", "College", "What share of the plants is tall?", "75%", picture=_palette_png()),
        # A number that begins with a zero: a column of numbers would lose it.
        _r1_onevision(11, "Deduction", "Social Test", "Which code opens the lock?", "042"),
        _r1_onevision(12, "Chemistry", "College", "Which ion is left?", "NA+"),
        _r1_onevision(13, "Deduction", "Social Test", "Which figure completes the row?", "E",
                      ["A", "B", "C", "D", "None of these"], picture=png("row", (700, 9))),
        _r1_onevision(14, "Math", "High School", "How many solutions are there?", "1,000", picture=png("?", (7, 9))),
        _r1_onevision(15, "Biology", "Junior High School", "Which part is marked?", "A",
                      ["the leaf", "the leaf vein", "the root"], written="dots"),
        _r1_onevision(16, "Physics", "College", "Which unit has the force?", "B", ["J", "N", "W", "Pa"],
                      written="one line"),
        # The answer is a choice's text.
        _r1_onevision(17, "Chemistry", "Junior High School", "Which colour has it?", "dark blue",
                      ["blue", "dark blue", "red"]),
        # Without a picture: loaders of others are ready for that.
        _r1_onevision(18, "Deduction", "Social Test", "All A are B. Some B are C. Are some A C?", "not certain",
                      picture=b""),
    ]  # fmt: skip


# How the choices stand in a question is not verified: these are the ways of the sets that it is taken from.
_CHOICE_LINES = {"brackets": "({letter}) {text}\n", "dots": "{letter}. {text}\n", "one line": "{letter}: {text} "}


def _r1_onevision(
    index: int,
    category: str,
    level: str,
    question: str,
    answer: str,
    choices: Sequence[str] = (),
    picture: bytes | None = None,
    written: str = "brackets",
) -> dict[str, Any]:
    line = _CHOICE_LINES[written]
    listed = "".join(line.format(letter=_letter(place), text=text) for place, text in enumerate(choices)).strip()
    end = "and provide the correct option letter, e.g., A, B, C, D, at the end." if choices else "requiring an answer."
    text = f"Hint: Please answer the question {end}\nQuestion: {question}"
    return {
        "index": index, "category": category, "level": level,
        "question": f"{text}\nChoices:\n{listed}" if choices else text,
        "choices": listed, "answer": answer,
        "image": base64.b64encode(jpeg(question) if picture is None else picture).decode(),
    }  # fmt: skip


# --- Files


def _write_parquet(path: Path, rows: Rows, features: Features) -> None:
    """The rows with the bytes of their pictures as they are: `datasets` would write some of them anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = features.arrow_schema
    # As `datasets` of 2023 and 2024 called it.
    described = schema.metadata[b"huggingface"].replace(b'"_type": "List"', b'"length": -1, "_type": "Sequence"')
    table = pyarrow.Table.from_pylist(list(rows), schema=schema.with_metadata({"huggingface": described}))
    pyarrow.parquet.write_table(table, path)


def _write_card(folder: Path, configs: Mapping[str, tuple[Features, Mapping[str, tuple[str, int]]]]) -> None:
    """The card's head: which files are which split, and what is in them."""
    described = [
        {
            "config_name": config,
            "features": _columns(features),
            "splits": [
                {"name": split, "num_bytes": _size_bytes(folder, path), "num_examples": count}
                for split, (path, count) in splits.items()
            ],
        }
        for config, (features, splits) in configs.items()
    ]
    if len(described) == 1:  # then it stands there without a list and without a name
        del described[0]["config_name"]
    head = {
        "configs": [
            {"config_name": config, "data_files": [{"split": name, "path": path} for name, (path, _) in splits.items()]}
            for config, (_, splits) in configs.items()
        ],
        "dataset_info": described if len(described) > 1 else described[0],
    }
    text = yaml.safe_dump(head, sort_keys=False)
    (folder / "README.md").write_text(f"---\n{text}---\n# {folder.name}\n", encoding="utf-8")


def _size_bytes(folder: Path, path: str) -> int:
    return sum(file.stat().st_size for file in folder.glob(path))


def _columns(features: Mapping[str, Any]) -> list[dict[str, Any]]:
    """As the cards of 2023 and 2024 name types; `datasets` of today would write `list` for `sequence`."""
    named = []
    for name, feature in features.items():
        if isinstance(feature, dict):
            named.append({"name": name, "struct": _columns(feature)})
        elif isinstance(feature, List):
            named.append({"name": name, "sequence": feature.feature.dtype})
        else:
            named.append({"name": name, "dtype": "image" if feature == _PICTURE else feature.dtype})
    return named


def _letter(place: int) -> str:
    return "ABCDEFGHIJ"[place]


# --- Pictures


def png(text: str, size: tuple[int, int] = (160, 100)) -> bytes:
    return _encoded(_drawn(text, size), "PNG")


def jpeg(text: str, size: tuple[int, int] = (160, 100)) -> bytes:
    return _encoded(_drawn(text, size), "JPEG")


def _cmyk_jpeg() -> bytes:
    return _encoded(_drawn("four inks").convert("CMYK"), "JPEG")


def _palette_png() -> bytes:
    """Colour 0 is transparent, given beside the palette and not as a channel."""
    return _encoded(_drawn("few colours").quantize(8), "PNG", transparency=0)


def _turned_jpeg() -> bytes:
    """It lies on its side, and its EXIF says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return _encoded(_drawn("turned", (120, 200)), "JPEG", exif=exif)


def _deep_grey_png() -> bytes:
    return _encoded(
        _drawn("sixteen bits").convert("L").convert("I").point(lambda level: level * 257).convert("I;16"), "PNG"
    )


def _named(content: bytes, name: str | None) -> dict[str, Any]:
    """A picture as a parquet file holds it."""
    return {"bytes": content, "path": name}


def _drawn(text: str, size: tuple[int, int] = (160, 100)) -> Image.Image:
    """The text, and a disc whose place depends on it, so that pictures differ."""
    picture = Image.new("RGB", size, (245, 245, 235))
    pen = ImageDraw.Draw(picture)
    place = sum(map(ord, text)) % max(1, size[0] - 20)
    pen.ellipse((place, size[1] // 2, place + 20, size[1] // 2 + 20), fill=(200, 60, 60))
    pen.multiline_text((4, 4), text.encode("ascii", "replace").decode(), fill=(20, 20, 40))
    return picture


def _encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()
