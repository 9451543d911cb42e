"""Runs of several servers in one report: the rows of the paper's table that are other models, as they are.

A guided server answers under every strength; the expert alone, or a base of another size, is another server's run in a
folder of its own. The first folder says what was asked; the others add rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sgl_proxythinker.evaluation.errors import EvaluationError
from sgl_proxythinker.evaluation.records import AnswerRecord, BehaviourRecord, QuestionRecord
from sgl_proxythinker.evaluation.run_folder import RunFolder


@dataclass(frozen=True)
class Joined:
    """What a report is made of."""

    answers: list[AnswerRecord]
    questions: list[QuestionRecord]
    behaviours: list[BehaviourRecord]
    manifest: dict[str, Any]
    beside: dict[str, dict[str, Any]]  # manifests of the other runs, by the names of their settings


def join(folder: RunFolder, beside: Sequence[RunFolder] = ()) -> Joined:
    """Answers of all runs to the questions of the first.

    Raises:
        EvaluationError: two runs have a setting of the same name, drew their answers in another way, or asked something
            else under the same id; or one has no answer to these questions.
    """
    answers, questions, behaviours = list(folder.answers().values()), folder.questions(), folder.behaviours()
    manifest, manifests = folder.manifest() or {}, {}
    asked = {(question.benchmark, question.id): question for question in questions}
    named = {answer.setting: folder for answer in answers}
    for other in beside:
        told = other.manifest() or {}
        _check_sampling(manifest, told, folder, other)
        _check_questions(asked, other)
        theirs = [answer for answer in other.answers().values() if (answer.benchmark, answer.question) in asked]
        settings = list(dict.fromkeys(answer.setting for answer in theirs))
        if twice := [setting for setting in settings if setting in named]:
            raise EvaluationError(
                f"{named[twice[0]].path} and {other.path} both have answers under {twice[0]}: a row is of one server. "
                "Ask one of them again under another name (--plain NAME, or --settings)."
            )
        if not theirs:
            raise EvaluationError(f"{other.path} has no answer to a question of {folder.path}.")
        named |= dict.fromkeys(settings, other)
        manifests[", ".join(settings)] = told
        answers += theirs
        behaviours += [one for one in other.behaviours() if (one.benchmark, one.question) in asked]
    return Joined(answers, questions, behaviours, manifest, manifests)


def _check_sampling(ours: dict[str, Any], theirs: dict[str, Any], folder: RunFolder, other: RunFolder) -> None:
    drawn, theirs_drawn = (told.get("run", {}).get("sampling") for told in (ours, theirs))
    if drawn != theirs_drawn:
        raise EvaluationError(
            f"answers of {folder.path} were drawn with {drawn}, those of {other.path} with {theirs_drawn}: no table "
            "compares them. Ask both in one way."
        )


def _check_questions(asked: dict[tuple[str, str], QuestionRecord], other: RunFolder) -> None:
    """Their wording may differ, by the presets of the two; not what is asked about what, nor the answer."""
    for question in other.questions():
        mine = asked.get((question.benchmark, question.id))
        if mine is not None and _substance(mine) != _substance(question):
            raise EvaluationError(
                f"question {question.id} of {question.benchmark} in {other.path} is not that of the first run: another "
                "revision of the data set. Ask both about one."
            )


def _substance(question: QuestionRecord) -> tuple[Any, ...]:
    return question.kind, question.answer, question.choices, question.pictures
