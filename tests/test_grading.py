"""Recorded answers get the grades that a careful reader gives them, by both rules; and none does harm."""

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest
import yaml

from sgl_proxythinker import evaluation
from sgl_proxythinker.evaluation.grading import grade_last, grade_published
from sgl_proxythinker.evaluation.grading.choices import letter_of
from sgl_proxythinker.evaluation.grading.last import AnswerIn
from sgl_proxythinker.evaluation.grading.numbers import number_in, same_number
from sgl_proxythinker.evaluation.questions import AnswerKind, Question

RECORDED = yaml.safe_load(Path(__file__).with_name("recorded_answers.yaml").read_text("utf-8"))["answers"]


def whole(text) -> str:
    """A text may be a list of parts, of which some are repeated."""
    if isinstance(text, list):
        return "".join(
            whole(part) if isinstance(part, str) else str(part["repeat"]) * part["times"] for part in text
        )  # fmt: skip
    return text


def question_of(said) -> Question:
    fields = {**said, "kind": AnswerKind(said["kind"]), "choices": tuple(said.get("choices", ()))}
    return Question(benchmark="recorded", id="", text="", pictures=(), **fields)


@pytest.mark.parametrize("recorded", RECORDED, ids=[each["name"] for each in RECORDED])
def test_a_recorded_answer_is_graded_as_a_careful_reader_does(recorded):
    text, question = whole(recorded["text"]), question_of(recorded["question"])
    got = {
        "published": grade_published(text, question).model_dump(),
        "last": grade_last(text, question, recorded["cut_off"]).model_dump(),
    }
    wanted = {rule: {**recorded[rule], "claim": whole(recorded[rule]["claim"])} for rule in got}
    assert got == wanted, recorded.get("why", "")


def test_enough_is_recorded():
    assert len(RECORDED) >= 80
    for rule in ("published", "last"):
        assert {each[rule]["right"] for each in RECORDED} == {True, False}
    differing = [each for each in RECORDED if each["published"]["right"] != each["last"]["right"]]
    assert len(differing) >= 10, "the two rules are not one"
    assert {each["question"]["kind"] for each in RECORDED} == {str(kind) for kind in AnswerKind}


@pytest.mark.parametrize(
    "hostile",
    [
        "9^{9^{9^9}}", "10^{10^{10}}", "(((" * 2000, "{" * 100_000, "\\frac{" * 3000, "9" * 5000, "1e999999999",
        "__import__('os').system('true')", "factorial(10**9)", "999999999!", "\\sum_{i=1}^{10^{10}} i", "-" * 50_000,
        "2**2**2**2**2**2", "a" * 100_000 + "!", "1," * 20_000, "\\text{" * 5000 + "}" * 5000,
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
@pytest.mark.parametrize("kind", AnswerKind)
def test_no_answer_holds_an_evaluation_up(hostile, kind):
    """A comparison that never ends, or that fills the memory, would end the run and all its answers in flight."""
    question = Question("recorded", "", "", (), kind, "A" if kind == AnswerKind.CHOICE else "5", ("5", "6"), 1)
    begin = time.monotonic()
    for text in (f"\\boxed{{{hostile}}}", f"<answer>{hostile}</answer>", hostile):
        assert not grade_last(text, question, False).right
        assert not grade_published(text, question).right
    assert time.monotonic() - begin < 60


def test_a_letter_inside_of_a_word_names_nothing():
    choices = ("circle", "square", "star")
    assert letter_of("A square", choices) is None
    assert letter_of("square", choices) == letter_of("B", choices) == letter_of("(b)", choices) == "B"
    assert letter_of("B: star", choices) is None, "its letter and its text contradict each other"
    assert letter_of("5", ("5", "5.0")) is None, "two choices say so"


@pytest.mark.parametrize(
    "text, value",
    [("5", 5), ("-3.50", -3.5), ("1,234.5 m", 1234.5), ("\\frac{1}{4}", 0.25), ("3/4", 0.75), ("$5", 5), ("45\\%", 45),
     ("x = 7", 7), ("12\\,\\mathrm{cm}^2", 12), ("60^\\circ", 60)],
)  # fmt: skip
def test_numbers_as_people_write_them(text, value):
    assert float(number_in(text).value) == value


@pytest.mark.parametrize("text", ["5 and 7", "3 of 4", "five", "1/0", "", "5 < x < 7", "2007-2008"])
def test_what_is_no_one_number(text):
    assert number_in(text) is None


def test_a_number_is_compared_to_as_many_places_as_are_asked():
    assert same_number("1.449", "1.4", 1) and not same_number("1.46", "1.4", 1)
    assert same_number("5 cm", "5", None) and same_number("5", "5 cm", None) and not same_number("5 cm", "5 m", None)
    assert same_number("45%", "0.45", 2) and same_number("45", "45%", None) and not same_number("45", "0.45", 2)


def test_a_preset_may_say_where_answers_stand():
    question = Question("", "", "", (), AnswerKind.INTEGER, "5")
    both, box, tag, neither = r"\boxed{4} <answer>5</answer>", r"\boxed{5}", "<answer>5</answer>", "The answer is 5."
    claims = {
        where: [grade_last(text, question, False, where).claim for text in (both, box, tag, neither)]
        for where in AnswerIn
    }
    assert claims == {"any": ["5", "5", "5", "5"], "box": ["4", "5", "", ""], "answer": ["5", "", "5", ""]}


def test_nothing_evaluates_what_a_model_wrote():
    """No `eval`, no `exec`, no pickle in the room that reads answers."""
    called, imported = set(), set()
    for file in Path(evaluation.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Name(id=name)):
                    called.add(name)
                case ast.Import(names=names):
                    imported |= {each.name for each in names}
                case ast.ImportFrom(module=module):
                    imported.add(module)
    assert called and not {"eval", "exec", "compile", "parse_expr", "sympify"} & called
    assert imported and not {"pickle", "marshal", "shelve", "code", "sympy"} & imported
