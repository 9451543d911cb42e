"""Recorded answers get the grades that a careful reader gives them, by both rules; and none does harm."""

from __future__ import annotations

import ast
import contextlib
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from sgl_proxythinker import evaluation
from sgl_proxythinker.evaluation.grading import grade_last, grade_published
from sgl_proxythinker.evaluation.grading.choices import letter_of
from sgl_proxythinker.evaluation.grading.grader import Grader
from sgl_proxythinker.evaluation.grading.last import AnswerIn
from sgl_proxythinker.evaluation.grading.numbers import number_in, same_number
from sgl_proxythinker.evaluation.questions import AnswerKind, Picture, Question
from sgl_proxythinker.evaluation.records import Grade

RECORDED = yaml.safe_load(Path(__file__).with_name("recorded_answers.yaml").read_text("utf-8"))["answers"]


def whole(text) -> str:
    """A text may be a list of parts, of which some are repeated."""
    if isinstance(text, list):
        return "".join(
            whole(part) if isinstance(part, str) else str(part["repeat"]) * part["times"] for part in text
        )  # fmt: skip
    return text


def question_of(said) -> Question:
    choices = tuple(said.get("choices", ()))
    fields = {**said, "kind": AnswerKind(said["kind"]), "choices": choices, "published_choices": choices}
    return Question(benchmark="recorded", id="", text="", pictures=(), **fields)


def of(recorded: dict) -> Any:
    is_long = recorded["name"] == "sentences by thousands"
    return pytest.param(recorded, id=recorded["name"], marks=[pytest.mark.heavy] * is_long)


@pytest.mark.parametrize("recorded", map(of, RECORDED))
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
    assert letter_of("5.0", ("5", "5.00")) is None, "two choices say so"


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


NOT_FIVE = (
    r"5\pi", "5π", "5x", "5!", "5^2", "5²", "5^n", "5i", "5+x", "5 - x", "5±x", r"5 \cdot \pi", "5 million", "5k",
    "5 hundred", "5 or six", "5 to ten", "5 minus one", "5_{6}", "x^2=5", "2x=5", "-x=5", "1/x=5", "x+y=5", "2:5",
    "500%", "55%", "5 < x", "-5", "5.1", "15",
)  # fmt: skip


@pytest.mark.parametrize("claim", NOT_FIVE)
@pytest.mark.parametrize("kind", [AnswerKind.INTEGER, AnswerKind.MATHEMATICS, AnswerKind.TEXT])
def test_what_only_begins_like_the_answer_is_not_it(claim, kind):
    question = Question("", "", "", (), kind, "5")
    assert not grade_last(rf"\boxed{{{claim}}}", question, False).right


@pytest.mark.parametrize(
    "claim, answer",
    [("5", r"5\pi"), ("25", r"25\pi"), ("3", "3x"), ("4", "4a"), ("50", "50 - x"), ("90", r"90^\circ - \alpha"),
     ("6", "6!"), ("2", "2^3"), ("10", "10^{-3}"), ("1", "1 + i"), ("3", "2:3"), ("5:3", "2:3"), ("4", "1:4"),
     ("11:30", "10:30"), ("8:00", "7:00"), ("CD = 5", "AB = 5"), ("y=2", "x=2"), ("2.5 km/h", "2.5 m/s"),
     ("5 km", "5 m"), ("x = 5 or x = 7", "7")],
)  # fmt: skip
def test_what_only_ends_or_begins_like_the_answer_is_not_it(claim, answer):
    question = Question("", "", "", (), AnswerKind.MATHEMATICS, answer)
    assert not grade_last(rf"\boxed{{{claim}}}", question, False).right


NO_UNIT = (
    (r"5\text{ million}", "5"), (r"5\text{ or more}", "5"), (r"7\text{ or 8}", "7"), (r"3\text{ squared}", "3"),
    (r"2\text{ hours and 30 minutes}", "2"), (r"5\pi\text{ or more}", r"5\pi"), (r"5\pi\text{ million}", r"5\pi"),
    (r"5\mathrm{ cubed}", "5"), (r"5\text{ dozen}^2", "5"),
)  # fmt: skip
OTHER_UNIT = (
    (r"2\pi\text{ cm}", r"2\pi \text{ m}"), (r"2\pi\text{ cm}^2", r"2\pi \text{ cm}"),
    (r"12\sqrt{3}\text{ cm}^{2}", r"12\sqrt{3}\text{ cm}^3"),
)  # fmt: skip


@pytest.mark.parametrize("claim, answer", NO_UNIT + OTHER_UNIT)
def test_words_in_latex_are_no_unit_unless_they_are_one(claim, answer):
    """Kills: whatever stands in a last `\\text{}` taken off, as if it changed nothing; one unit taken for another."""
    question = Question("", "", "", (), AnswerKind.MATHEMATICS, answer)
    assert not grade_last(rf"\boxed{{{claim}}}", question, False).right
    assert letter_of(claim, (answer, "11")) is None
    assert letter_of(f"A: {claim}", (answer, "11")) is None


@pytest.mark.parametrize(
    "claim, answer",
    [(r"36\pi \text{ cm}^2", r"36\pi"), (r"36\pi\,\mathrm{cm}^{2}", r"36\pi"), (r"$36\pi\text{ cm}^2$.", r"36\pi"),
     (r"36\pi \text{ square centimeters}", r"36\pi \text{ cm}^2"), (r"36\pi", r"36\pi \text{ cm}^2"),
     (r"12\sqrt{3}\text{ cm}^2", r"12\sqrt{3}"), (r"\frac{25\pi}{3}\text{ m}^2", r"\frac{25\pi}{3}"),
     (r"36\pi\text{ cm}", r"36\pi"), (r"2\pi\text{ radians}", r"2\pi\text{ rad}"), (r"36\pi\text{ units}", r"36\pi"),
     (r"x = 36\pi\text{ cm}", r"36\pi")],
)  # fmt: skip
def test_an_expression_may_have_a_unit(claim, answer):
    question = Question("", "", "", (), AnswerKind.MATHEMATICS, answer)
    assert grade_last(rf"\boxed{{{claim}}}", question, False).right
    assert letter_of(claim, ("11", answer)) == letter_of(f"B: {claim}", ("11", answer)) == "B"


@pytest.mark.parametrize(
    "claim", ["5", "x = 5", "5 cm", "5 apples", r"5\text{ cm}", "5.0", "10/2", "7 - 2 = 5", "5 m/s^2"]
)
def test_what_says_the_answer_in_more_words_is_it(claim):
    assert grade_last(rf"\boxed{{{claim}}}", Question("", "", "", (), AnswerKind.INTEGER, "5"), False).right


@pytest.mark.parametrize(
    "claim, choices, letter",
    [(r"5\pi", (r"5\pi", "5", r"10\pi", "25"), "A"), ("5", (r"5\pi", "5", r"10\pi", "25"), "B"),
     ("2:3", ("2:3", "1:3", "3:2", "4:3"), "A"), ("12:30", ("12:30", "11:30"), "A"),
     ("5 cm", ("5 cm", "5 m", "5"), "A"),
     (r"\frac{1}{2}", (r"\frac{1}{2}", "0.5"), "A"), ("20", ("10", "20 cm"), "B"), (r"20\pi", ("10", "20"), None),
     ("20^2", ("10", "20"), None), ("20 to thirty", ("10", "20"), None), ("x=3", ("$y=3$", "$x=5$"), None),
     ("D,E", (), None), ("D) and E)", (), None), ("D, or maybe A", (), None), ("(D) 12 cm", (), "D")],
)  # fmt: skip
def test_the_choice_that_a_claim_names(claim, choices, letter):
    assert letter_of(claim, choices) == letter


@pytest.mark.parametrize(
    "text, claim",
    [(r"<think>\boxed{5}</think> The answer is 7.", "7"),
     ("<think><answer>5</answer> hm</think> The answer is 7", "7"),
     (r"<think>so \boxed{5} wait", ""), (r"<think>a</think>b<think>\boxed{5}", ""),
     ("There is no option: 20", "There is no option: 20"),
     ("I thought the answer is 5. But it is something else, and more " * 2, ""),
     ("First the bars are read, then they are added up with care. The answer is 12 cm.", "12 cm")],
)  # fmt: skip
def test_a_thought_and_a_denial_claim_nothing(text, claim):
    assert grade_last(text, Question("", "", "", (), AnswerKind.TEXT, "x"), False).claim == claim


BARS = ("10 cm", "12 cm", "Fewer, because of rain", "The same as before")
# An answer, its question's kind, choices and answer, and what is read as its claim.
REASONED = (
    ("The answer is B because the bar is tallest.", AnswerKind.CHOICE, BARS, "B", "B"),
    ("The answer is B, since A is not the tallest bar.", AnswerKind.CHOICE, BARS, "B", "B"),
    ("The correct answer is B: 12 cm, since it is so.", AnswerKind.CHOICE, BARS, "B", "B: 12 cm"),
    ("The answer is B, as the bar is tallest.", AnswerKind.CHOICE, BARS, "B", "B"),
    ("The answer is B since the bar is tallest.", AnswerKind.CHOICE, BARS, "B", "B"),
    ("The answer is **B** because the bar is tallest.", AnswerKind.CHOICE, BARS, "B", "B"),
    ("The answer is 12 cm, which the ruler shows.", AnswerKind.CHOICE, BARS, "B", "12 cm"),
    ("The answer is C: Fewer, because of rain.", AnswerKind.CHOICE, BARS, "C", "C: Fewer, because of rain"),
    ("The answer is the same as before.", AnswerKind.CHOICE, BARS, "D", "the same as before"),
    ("In the picture the answer is 5 because two bars are red and three are blue.", AnswerKind.INTEGER, (), "5", "5"),
    ("The answer is 5 since two bars are red and three are blue.", AnswerKind.INTEGER, (), "5", "5"),
    ("In the picture the answer is 5, since two bars are red.", AnswerKind.INTEGER, (), "5", "5"),
    ("The answer is 3, so that is it.", AnswerKind.INTEGER, (), "3", "3"),
    ("The answer is approximately 5.2 cm.", AnswerKind.DECIMAL, (), "5.2", "approximately 5.2 cm"),
    ("The answer is approx. 5.2 cm.", AnswerKind.DECIMAL, (), "5.2", "approx. 5.2 cm"),
    ("The answer is roughly 5.2, since it is so.", AnswerKind.DECIMAL, (), "5.2", "roughly 5.2"),
    ("The answer is around 5.2.", AnswerKind.DECIMAL, (), "5.2", "around 5.2"),
    ("The answer is red, because it is so.", AnswerKind.TEXT, (), "red", "red"),
    ("The answer is none, since 2005.", AnswerKind.TEXT, (), "none, since 2005", "none, since 2005"),
)  # fmt: skip
NOT_SO = (
    ("The answer is not B because the bar is tallest.", AnswerKind.CHOICE, BARS, "B"),
    ("The answer isn't B because the bar is tallest.", AnswerKind.CHOICE, (), "B"),
    ("The answer is not 5 because two bars are red.", AnswerKind.INTEGER, (), "5"),
    ("The answer is A or B because both are tall.", AnswerKind.CHOICE, BARS, "A"),
    ("The answer is A or B because both are tall.", AnswerKind.CHOICE, (), "A"),
    ("The answer is A, as well as B.", AnswerKind.CHOICE, BARS, "A"),
    ("The answer is A, as is B.", AnswerKind.CHOICE, (), "A"),
    ("The answer is A, so not quite, but B.", AnswerKind.CHOICE, BARS, "A"),
    ("The answer is A: 12 cm, since it is so.", AnswerKind.CHOICE, BARS, "A"),
    ("The answer is C: Fewer, because of rain.", AnswerKind.CHOICE, ("Fewer", *BARS[1:]), "A"),
    ("The answer is 5, so we double it to get 10.", AnswerKind.INTEGER, (), "5"),
    ("The answer is 5, which is wrong.", AnswerKind.INTEGER, (), "5"),
    ("The answer is 5, which isn't right.", AnswerKind.INTEGER, (), "5"),
    ("The answer is 5 million because two bars are red.", AnswerKind.INTEGER, (), "5"),
    ("The answer is around the corner 5.", AnswerKind.INTEGER, (), "5"),
    ("The answer is the highest since 2005.", AnswerKind.TEXT, (), "the highest"),
    ("The answer is 5 as a share of 8.", AnswerKind.INTEGER, (), "5"),
)  # fmt: skip


@pytest.mark.parametrize("text, kind, choices, answer, claim", REASONED)
def test_a_reason_behind_an_answer_is_no_part_of_it(text, kind, choices, answer, claim):
    question = Question("", "", "", (), kind, answer, choices, 1)
    assert grade_last(text, question, False) == Grade(claim=claim, right=True)


@pytest.mark.parametrize("text, kind, choices, answer", NOT_SO)
def test_what_stands_before_a_reason_is_no_answer_by_itself(text, kind, choices, answer):
    """Kills: the end of a claim left out where it denies the claim, is another one, or is part of a choice's text."""
    assert not grade_last(text, Question("", "", "", (), kind, answer, choices, 1), False).right


def test_mmmu_pros_options_are_the_characters_that_the_papers_scripts_take_them_for():
    """As `process_response` and `run_evaluate_math` at f0de02a: `options.index(response)`, of five letters, and
    `options[ord(letter) - 65]`, both in one string."""

    def right(options, answer):
        question = Question(
            "", "", "", (), AnswerKind.CHOICE, answer, published_choices=tuple(options), published_letters=5
        )
        return {letter for letter in "ABCDEFGHIJ" if grade_published(rf"\boxed{{{letter}}}", question).right}

    assert right("['Heart', 'Lung']", "C") == {"C", "H"}, "C is the third character"
    assert right("['Heart', 'Lung']", "D") == {"D", "E"}
    assert right("['Heart', 'Lung']", "A") == {"A"} and right("['Heart', 'Lung']", "B") == {"B"}
    assert right("['A bus', 'B']", "A") == {"A", "C"}, "of the letter C that A is found at, A is the character again"
    assert right("['fat B', 'x']", "B") == {"B"}, "found behind the fifth character, which has no letter"


def test_a_list_is_of_one_unit_and_has_nothing_else():
    question = Question("", "", "", (), AnswerKind.NUMBERS, "[2007, 2008]")
    right = {text: grade_last(rf"\boxed{{{text}}}", question, False).right for text in (
        "2007, 2008", "[2007, 2008]", "2007 and 2008", "2007 cm, 2008 kg", "2008, 2007", "2007", "2007, 2008, x"
    )}  # fmt: skip
    assert [text for text, is_right in right.items() if is_right] == ["2007, 2008", "[2007, 2008]", "2007 and 2008"]


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


@pytest.fixture
def grader():
    with contextlib.closing(Grader(within_s=5)) as grader:
        yield grader


@pytest.mark.heavy
def test_an_answer_that_is_never_compared_is_given_up_and_the_next_one_graded(grader):
    """Its claim is kept, and it counts as not right."""
    question = Question("", "", "", (), AnswerKind.MATHEMATICS, "5")
    assert grader.grade(r"\boxed{5}", question, False, AnswerIn.ANY).last.right
    grades = grader.grade(r"\boxed{(9^{99})!}", question, False, AnswerIn.ANY)
    assert grades.last == Grade(claim="(9^{99})!", right=False) and not grades.published.right
    assert grader.grade(r"\boxed{5}", question, False, AnswerIn.ANY).last.right


@pytest.mark.heavy
def test_a_grader_that_is_killed_is_started_again(grader):
    question = Question("", "", "", (Picture(lambda: b""),), AnswerKind.INTEGER, "5")
    grader._process.kill()
    grader._process.join()
    grader.grade("5", question, False, AnswerIn.ANY)
    assert grader.grade("5", question, False, AnswerIn.ANY).last.right
