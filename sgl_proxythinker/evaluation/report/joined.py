"""Runs of several servers in one report: the rows of the paper's table that are other models, as they are.

A guided server answers under every strength; the expert alone, or a base of another size, is another server's run in a
folder of its own. The first folder says what was asked; the others add rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sgl_proxythinker.evaluation.errors import EvaluationError
from sgl_proxythinker.evaluation.records import AnswerRecord, BehaviourRecord, QuestionRecord
from sgl_proxythinker.evaluation.run_folder import RunFolder
from sgl_proxythinker.evaluation.sampling import OF_SGLANG
from sgl_proxythinker.evaluation.server import Server

_PIXELS = ("min_pixels", "max_pixels")  # of a preset: what the models see


@dataclass(frozen=True)
class Joined:
    """What a report is made of."""

    answers: list[AnswerRecord]
    questions: list[QuestionRecord]
    behaviours: list[BehaviourRecord]
    manifest: dict[str, Any]
    own: frozenset[str]  # settings of the first run
    beside: dict[str, dict[str, Any]]  # manifests of the other runs, by the names of their settings


def join(folder: RunFolder, beside: Sequence[RunFolder] = ()) -> Joined:
    """Answers of all runs to the questions of the first, on the benchmarks that it has answers of.

    Raises:
        EvaluationError: the runs can't be compared, or one has no answer to these questions.
    """
    answers, questions, behaviours = list(folder.answers().values()), folder.questions(), folder.behaviours()
    own = frozenset(answer.setting for answer in answers)
    check_beside(folder, beside, own)
    begun = {answer.benchmark for answer in answers}
    asked = {(question.benchmark, question.id) for question in questions if question.benchmark in begun}
    manifests = {}
    for other in beside:
        theirs = [answer for answer in other.answers().values() if (answer.benchmark, answer.question) in asked]
        settings = list(dict.fromkeys(answer.setting for answer in theirs))
        if not theirs:
            raise EvaluationError(f"{other.path} has no answer to a question of {folder.path}.")
        manifests[", ".join(settings)] = other.manifest() or {}
        answers += theirs
        behaviours += [
            one for one in other.behaviours() if (one.benchmark, one.question) in asked and one.setting in settings
        ]
    return Joined(answers, questions, behaviours, folder.manifest() or {}, own, manifests)


def check_beside(folder: RunFolder, beside: Sequence[RunFolder], settings: Collection[str]) -> None:
    """Refuse runs that no table compares; it can be known before anything is asked.

    Args:
        folder: the first run, begun already where there is any beside.
        settings: of the first run.

    Raises:
        EvaluationError: a folder is there twice; two runs have a setting of the same name, drew their answers in
            another way, saw pictures in another size, or asked something else under the same id.
    """
    named, paths = dict.fromkeys(settings, folder), {folder.path.resolve()}
    asked = {(question.benchmark, question.id): question for question in folder.questions()}
    ours = folder.manifest() or {}
    for other in beside:
        if other.path.resolve() in paths:
            raise EvaluationError(f"--beside {other.path}: it is in this report already.")
        paths.add(other.path.resolve())
        theirs = other.manifest() or {}
        _check_same("drawn with", *_drawn(ours, theirs), folder, other)
        _check_same("asked with pictures within", _pixels(ours), _pixels(theirs), folder, other)
        _check_questions(asked, ours, theirs, other)
        for setting in dict.fromkeys(head.setting for head in other.heads().values()):
            if setting in named:
                raise EvaluationError(
                    f"{named[setting].path} and {other.path} both have answers under {setting}: a row is of one "
                    "server. Ask one of them again under another name (--plain NAME, or --settings)."
                )
            named[setting] = other


def used_sampling(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """How a run drew its answers, without what greedy ones make no use of."""
    sampling = (manifest.get("run") or {}).get("sampling") or {}
    unused = () if sampling.get("temperature") else ("top_p", "seed")
    return {name: value for name, value in sampling.items() if name not in unused}


def _drawn(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """How two runs drew their answers, as far as it can differ: what only SGLang is told, no other server says."""
    drawn = used_sampling(ours), used_sampling(theirs)
    servers = [((manifest.get("sessions") or [{}])[0].get("server") or {}) for manifest in (ours, theirs)]
    if not all(map(Server.is_sglang, servers)):
        for each in drawn:
            for name in OF_SGLANG:
                each.pop(name, None)
    return drawn


def _pixels(manifest: Mapping[str, Any]) -> dict[str, Any]:
    preset = (manifest.get("run") or {}).get("preset") or {}
    return {name: preset.get(name) for name in _PIXELS}


def _check_same(how: str, ours: dict[str, Any], theirs: dict[str, Any], folder: RunFolder, other: RunFolder) -> None:
    if ours != theirs:
        raise EvaluationError(
            f"answers of {folder.path} were {how} {ours}, those of {other.path} with {theirs}: no table compares them. "
            "Ask both in one way."
        )


def _check_questions(
    asked: Mapping[tuple[str, str], QuestionRecord],
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    other: RunFolder,
) -> None:
    for name, data in (theirs.get("data") or {}).items():
        mine, revision = ((one or {}).get("revision") for one in ((ours.get("data") or {}).get(name), data))
        if mine and revision and mine != revision:
            raise EvaluationError(f"{other.path} asked revision {revision} of {name}, the first run {mine}: ask one.")
    for question in other.questions():
        known = asked.get((question.benchmark, question.id))
        if known is not None and _substance(known) != _substance(question):
            raise EvaluationError(
                f"question {question.id} of {question.benchmark} in {other.path} is not that of the first run: another "
                "revision of the data set. Ask both about one."
            )


def _substance(question: QuestionRecord) -> tuple[Any, ...]:
    """What is asked about what, and the answer. MathVision's wording is a preset's, so it may differ."""
    return question.kind, question.answer, question.choices, question.pictures
