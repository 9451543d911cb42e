"""Answers in texts: where they are, when two are the same, and who wins a vote."""

from __future__ import annotations

import itertools
import threading

import pytest

from sgl_proxythinker.answers import ask, final_answer, normal_form, same_answer
from sgl_proxythinker.programs.majority_vote import Count, count


@pytest.mark.parametrize(
    "text, answer",
    [
        ("7", "7"),
        ("  7\n", "7"),
        ("<think>\nrow 1: 3\n</think><answer>7</answer>", "7"),
        ("<answer>6</answer> wait, <answer> 7 </answer> done", "7"),
        (r"so \boxed{6}, no: \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{6} <answer>\boxed{7}</answer>", "7"),
        (r"<answer>7</answer> as \boxed{6}", "7"),
        ("<think>6</think> It is 7.", "It is 7."),
        # Nothing is claimed by what ends too early.
        ("<think>\nrow 1: 3", ""),
        ("<think>6</think><answer>1", ""),
        (r"the answer is \boxed{\frac{1}{2}", ""),
        ("", ""),
    ],
)
def test_the_claim_is_the_last_one(text, answer):
    assert final_answer(text) == answer


def test_a_text_that_was_cut_off_claims_only_what_it_has_marked():
    assert final_answer("First, I see 1", cut_off=True) == ""
    assert final_answer("<think>x</think> It is 1", cut_off=True) == ""
    assert final_answer("<answer>7</answer> and furthermo", cut_off=True) == "7"
    assert final_answer(r"\boxed{7} and furthermo", cut_off=True) == "7"


SAME = [
    ("7", " 7. "),
    ("7", "$7$"),
    ("7", "**7**"),
    ("7", "7.0"),
    ("0.5", r"\frac{1}{2}"),
    ("1/2", "50%"),
    ("1,000", "1000"),
    ("-3", "−3"),
    ("(B)", "b"),
    ("Red  circle", "red circle"),
    ("x=1", "1"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    ("x^2+y^2", "y^2+x^2"),
]
DIFFERENT = [
    ("7", "-7"),
    ("7", "17"),
    ("A3", "B3"),
    ("act", "cat"),
    ("3 cats", "3 dogs"),
    ("7 apples", "7"),
    ("7 apples", "7 oranges"),
    ("5 cm", "5 m"),
    ("A", "B"),
    ("(1,2)", "(2,1)"),
    ("", ""),
    ("", "7"),
    ("9^{9^{9}}", "7"),
    ("9^{99999}", "7"),
]


@pytest.mark.parametrize("one, other", SAME)
def test_the_same_answer_in_other_words(one, other):
    assert same_answer(one, other) and same_answer(other, one)


@pytest.mark.parametrize("one, other", DIFFERENT)
def test_different_answers(one, other):
    assert not same_answer(one, other) and not same_answer(other, one)


def test_answers_are_compared_in_any_thread():
    """math-verify's time limit is an alarm, which only the main thread may set."""
    found = []
    thread = threading.Thread(target=lambda: found.append((same_answer("1/2", "0.5"), same_answer("1/2", "0.6"))))
    thread.start()
    thread.join()
    assert found == [(True, False)]


def test_a_normal_form_is_its_own():
    for text in itertools.chain.from_iterable(SAME + DIFFERENT):
        assert normal_form(normal_form(text)) == normal_form(text)


def test_a_question_without_an_instruction_stays_bare():
    assert ask("How many?", "") == "How many?"
    assert ask("How many?", "Think.") == "How many?\n\nThink."


@pytest.mark.parametrize(
    "answers, counts",
    [
        (["7", "8", "7.0", "8", "7"], [("7", 3), ("8", 2)]),
        (["1/2", "3", "0.5", "50%"], [("1/2", 3), ("3", 1)]),
        (["8", "7", "7", "8"], [("8", 2), ("7", 2)]),  # who came first leads a tie
        (["", "7", ""], [("7", 1)]),  # who claims nothing votes for nothing
        (["", ""], []),
        ([], []),
    ],
)
def test_equal_answers_are_counted_together(answers, counts):
    assert count(answers) == [Count(answer=answer, votes=votes) for answer, votes in counts]
