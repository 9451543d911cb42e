"""Reasoning behaviours by patterns, the answers labelled by hand, and how observers agree. No server."""

from __future__ import annotations

import hashlib
import random
import re
import time
from pathlib import Path

import pytest

from sgl_proxythinker.evaluation.behaviours import tables
from sgl_proxythinker.evaluation.behaviours.agreement import Accuracy, accuracy, agreement, between_observers
from sgl_proxythinker.evaluation.behaviours.command_line import main
from sgl_proxythinker.evaluation.behaviours.labelled import labelled_answers
from sgl_proxythinker.evaluation.behaviours.patterns import PATTERNS, count
from sgl_proxythinker.evaluation.records import AnswerRecord, Behaviour, BehaviourRecord, Grade, Outcome
from sgl_proxythinker.evaluation.run_folder import RunFolder
from sgl_proxythinker.evaluation.statistics import wilson

BACKTRACKING, VERIFICATION, SUBGOALS, BACKWARD = Behaviour
PAGE = Path(__file__).parent.parent / "docs" / "behaviours.md"
NONE = dict.fromkeys(Behaviour, 0)
GRADE = Grade(claim="", right=False)

# What looks like a behaviour and is none.
FALSE_FRIENDS = [
    "Two people wait for the bus.", "The average wait is 12 minutes.", "A check mark stands beside Pool.",
    "The check boxes are empty.", "The shirt is checkered.", "The point lies in the first quadrant.",
    "First row: 3 stars. Second row: 4 stars.", "It is actually a mammal.", "We need to find x.",
    "He goes back to the tent.", "The car drives backward.", 'The sign says "Wait, that\'s not right! Let me try!"',
    'On the board: "First, we need to find customers."', "Step 1: 14 + 6 = 20.", "The alternative route is longer.",
    "That is right.", "So that is possible.", "Let's denote the side by a.",
    "几个人在等车。", "对不对称的图形来说，答案是B。",
]  # fmt: skip


def of(behaviour: Behaviour, number: int = 1) -> dict[Behaviour, int]:
    return NONE | {behaviour: number}


# Patterns


@pytest.mark.parametrize(
    ("behaviour", "pattern"), [(behaviour, pattern) for behaviour in Behaviour for pattern in PATTERNS[behaviour]]
)
def test_each_pattern_catches_its_example(behaviour, pattern):
    """Kills: a pattern in capital letters, which lower case never has; an example that another pattern catches."""
    assert pattern.expression.search(pattern.catches.lower())
    assert count(f"The bar is at 20. {pattern.catches}")[behaviour] == 1


@pytest.mark.parametrize("text", FALSE_FRIENDS)
def test_what_only_looks_like_a_behaviour_is_none(text):
    assert count(text) == NONE


def test_a_sentence_counts_once_however_often_it_is_said():
    check = "Wait, is there any mistake? 3 rows of 5 are 15.\n\n"
    assert count(check) == count(check * 1000) == of(VERIFICATION)
    assert count(check + "Wait, is there  any MISTAKE?") == of(VERIFICATION), (
        "capitals and spaces make no other sentence"
    )
    assert count("".join(f"Did I miss number {number}? " for number in range(5))) == of(VERIFICATION, 5)


def test_a_text_without_words_shows_nothing():
    for text in ("", " \n\n ", "B", "\\boxed{24}", '"', "“", "…?!", "\ud800", "\0"):
        assert count(text) == NONE


def test_behaviours_are_counted_apart():
    text = "First, we need to find r. r = 2. Let me double-check r. I misread it. Suppose the answer is 5. Then r = 3."
    assert count(text) == {BACKTRACKING: 1, VERIFICATION: 1, SUBGOALS: 1, BACKWARD: 1}


def test_what_is_quoted_is_not_read_and_what_follows_is():
    """Kills: a quotation mark without its other half that takes the rest of the answer with it."""
    assert count('It is 5" wide.\nLet me double-check this. "So') == of(VERIFICATION)
    assert count("“Scratch that” is written there. I misread it.") == of(BACKTRACKING)


PIECES = [
    "\n", "“", '"', "1", "is right ", "wait, is ", "if the ", "let me ", "first ", "a", "so is ", "。", "不", ")", ". ",
    "to get x, we need ", "for x to be ", "look again ", "put it in ", "suppose ", "step 1 ", ".)", "要求只",
]  # fmt: skip


@pytest.mark.heavy
def test_time_grows_with_the_length_of_the_text():
    """Kills: an expression that tries a quadratic number of ways: 100,000 characters would take minutes."""
    drawn = random.Random(1)
    texts = [piece * (100_000 // len(piece)) for piece in PIECES]
    texts.append("".join(drawn.choice(PIECES) for _ in range(20_000))[:100_000])
    for text in texts:
        began = time.process_time()
        count(text)
        assert time.process_time() - began < 5, text[:50]


# The labelled answers


def test_at_least_a_hundred_answers_are_labelled_and_split_by_rule():
    answers = labelled_answers()
    assert len(answers) >= 120 and len({answer.id for answer in answers}) == len({answer.text for answer in answers})
    assert all(set(answer.counts) == set(Behaviour) and answer.text.strip() for answer in answers)
    ordered = sorted(answers, key=lambda answer: hashlib.sha256(answer.id.encode()).hexdigest())
    half = len(answers) // 2
    assert {answer.split for answer in ordered[:half]} == {"tuning"}
    assert {answer.split for answer in ordered[half:]} == {"held_out"}
    for split in ("tuning", "held_out"):
        for behaviour in Behaviour:
            shown = [bool(answer.counts[behaviour]) for answer in answers if answer.split == split]
            assert sum(shown) >= 10 and shown.count(False) >= 10, (split, behaviour)
    assert sum(answer.counts == NONE for answer in answers) >= 50
    assert sum(bool(re.search(r"[一-鿿]", answer.text)) for answer in answers) >= 10


def test_the_page_says_how_the_patterns_fare(capsys):
    """Kills: numbers that were measured on other patterns, or on other labels."""
    assert main(["--labelled"]) == 0
    measured = capsys.readouterr().out
    assert tables.of_patterns(labelled_answers()) in measured
    rows = [line for line in measured.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 2 * len(Behaviour)
    assert "\n".join(rows) in PAGE.read_text()
    texts = labelled_answers()
    assert f"{len(texts)} answers" in PAGE.read_text()


# Agreement


def observed(*present: int, behaviour: Behaviour = BACKTRACKING) -> list[dict[Behaviour, int]]:
    return [NONE | {behaviour: number} for number in present]


def test_agreement_by_hand():
    """2 + 1 of 5 the same; by chance .6 * .4 + .4 * .6 = .48; kappa (.6 - .48) / .52."""
    agreed = agreement(observed(1, 2, 3, 0, 0), observed(3, 2, 0, 0, 0))[BACKTRACKING]
    assert agreed.answers == 5 and agreed.same == pytest.approx(0.8)
    assert agreed.kappa == pytest.approx((0.8 - (0.6 * 0.4 + 0.4 * 0.6)) / (1 - 0.48))
    assert agreed.difference == pytest.approx((2 + 0 + 3) / 5)


def test_kappa_of_fifty_answers_by_hand():
    """The same in .7; by chance .5 * .6 + .5 * .4 = .5; kappa .2 / .5."""
    one = observed(*[1] * 20, *[1] * 5, *[0] * 10, *[0] * 15)
    other = observed(*[1] * 20, *[0] * 5, *[1] * 10, *[0] * 15)
    assert agreement(one, other)[BACKTRACKING].kappa == pytest.approx(0.4)
    assert agreement(other, one)[BACKTRACKING] == agreement(one, other)[BACKTRACKING]


def test_kappa_is_1_0_below_and_not_defined():
    assert agreement(observed(1, 0), observed(7, 0))[BACKTRACKING][1:] == (1.0, 1.0, 3.0)
    assert agreement(observed(1, 1, 0, 0), observed(1, 0, 1, 0))[BACKTRACKING].kappa == 0
    assert agreement(observed(1, 0), observed(0, 1))[BACKTRACKING].kappa == -1
    assert agreement(observed(1, 1), observed(1, 1))[BACKTRACKING].kappa is None
    assert agreement(observed(0, 0), observed(1, 1))[BACKTRACKING].kappa == 0
    assert agreement(observed(1, 0), observed(1, 0))[VERIFICATION].kappa is None, "behaviours apart"


@pytest.mark.parametrize(("one", "other"), [([], []), (observed(1), observed(1, 1))])
def test_agreement_of_other_answers_is_an_error(one, other):
    with pytest.raises(ValueError, match="the same answers"):
        agreement(one, other)


def test_precision_and_recall_by_hand():
    fared = accuracy(observed(1, 1, 2, 0, 0, 0), observed(1, 3, 0, 1, 1, 0))[BACKTRACKING]
    assert fared == Accuracy(found=2, wrongly=1, missed=2)
    assert fared.precision == (pytest.approx(2 / 3), *wilson(2, 3)) and fared.recall == (0.5, *wilson(2, 4))
    nothing = accuracy(observed(0), observed(0))[BACKTRACKING]
    assert nothing.precision is None and nothing.recall is None, "no share of nothing"


def record(by: str, question: str, number: int, **other) -> BehaviourRecord:
    fields = {"benchmark": "b", "setting": "s", "repeat": 1, **other}
    return BehaviourRecord(by=by, question=question, counts=of(VERIFICATION, number), **fields)


def test_observers_are_compared_on_the_answers_that_both_have_counted():
    """Kills: answers of another setting or repeat that are taken for the same one."""
    records = [record("patterns", "1", 2), record("patterns", "2", 0), record("patterns", "3", 1),
               record("judge", "3", 1), record("judge", "1", 0), record("judge", "2", 0, setting="t"),
               record("judge", "2", 0, repeat=2), record("judge", "2", 0, benchmark="c"),
               record("third", "9", 1)]  # fmt: skip
    [(pair, agreed)] = between_observers(records).items()
    assert pair == ("patterns", "judge")
    assert agreed[VERIFICATION] == (2, 0.5, 0.0, 1.0)


# The command line


@pytest.fixture
def folder(tmp_path):
    """Of two settings; one request failed, one answer is empty, one was cut off."""
    folder = RunFolder(tmp_path / "run")
    for setting, question, outcome, text in (
        ("alone", "1", Outcome.ANSWERED, "The answer is 5."),
        ("alone", "2", Outcome.EMPTY, ""),
        ("guided", "1", Outcome.CUT_OFF, "It is 5. Let me double-check this. I misread the"),
        ("guided", "2", Outcome.FAILED, "Let me double-check this."),
    ):
        folder.add(
            AnswerRecord(benchmark="b", question=question, setting=setting, repeat=1, outcome=outcome, text=text,
                         published=GRADE, last=GRADE)
        )  # fmt: skip
    return folder


def test_patterns_count_every_answer_of_a_run_once(folder, capsys):
    assert main([str(folder.path)]) == 0
    counted = {(each.setting, each.question): each.counts for each in folder.behaviours()}
    assert counted == {
        ("alone", "1"): NONE, ("alone", "2"): NONE, ("guided", "1"): NONE | {VERIFICATION: 1, BACKTRACKING: 1}
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "| alone " in out and "| guided " in out and "Agreement" not in out
    kept = (folder.path / "behaviours.jsonl").read_bytes()
    assert main([str(folder.path)]) == 0
    assert (folder.path / "behaviours.jsonl").read_bytes() == kept, "what is kept is not kept again"


def test_counts_of_other_patterns_are_replaced(folder):
    """Kills: answers that were counted by an earlier version and stay as they are."""
    old = record("patterns", "1", 7, setting="alone")
    folder.add_behaviours([old])
    main([str(folder.path)])
    [new] = [each for each in folder.behaviours() if (each.setting, each.question) == ("alone", "1")]
    assert new.counts == NONE


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "name a run's folder"),
        (["nowhere"], "not the folder of a run"),
        (["RUN", "--judge-url", "http://127.0.0.1:9/v1"], "go together"),
        (["RUN", "--judge-model", "m"], "go together"),
        (["RUN", "--judge-url", "u", "--judge-model", "patterns"], "can't be named"),
        (["RUN", "--judge-url", "u", "--judge-model", "m", "--runs", "0"], "less than 1"),
    ],
)
def test_a_command_line_that_cant_be_meant_is_refused(folder, tmp_path, monkeypatch, capsys, arguments, why):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refused:
        main([str(folder.path) if argument == "RUN" else argument for argument in arguments])
    assert refused.value.code == 2 and why in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists(), "looking into a folder makes none"


def test_a_table_shows_what_would_end_a_column():
    row = record("a|b\nc", "1", 1)
    [_, _, line] = tables.of_settings([row]).splitlines()
    assert "a\\|b c" in line and len(re.findall(r"(?<!\\)\|", line)) == 4 + len(Behaviour)
