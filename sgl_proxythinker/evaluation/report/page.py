"""The report as one HTML page that loads nothing and runs no script but its own, whatever models wrote."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sgl_proxythinker.evaluation.records import AnswerRecord, Behaviour
from sgl_proxythinker.evaluation.report import wording
from sgl_proxythinker.evaluation.report.embedded_pictures import embed
from sgl_proxythinker.evaluation.report.flips import MOST_OF_A_PAIR, FlipsOfPair
from sgl_proxythinker.evaluation.report.head import facts_of
from sgl_proxythinker.evaluation.report.plots import (
    DARK,
    LIGHT,
    Curve,
    Panel,
    accuracy_panels,
    legend_of,
    pass_at_panels,
    svg_url,
)
from sgl_proxythinker.evaluation.report.results import SIGNIFICANT, Results, Verdict
from sgl_proxythinker.evaluation.summary import RULES, BehaviourSummary

HERE = Path(__file__).parent
RULE_NAMES = {"last": "last marked answer", "published": "the paper’s scripts"}


class Plot(NamedTuple):
    """Panels of a rule as the page shows them."""

    rule: str
    legend: list[Curve]
    panels: list[tuple[Panel, str, str]]  # with data URLs for a light and a dark page


class Observer(NamedTuple):
    """Behaviours as one observer counts them."""

    by: str
    summaries: list[BehaviourSummary]
    most: float  # the highest end of an interval


def as_page(results: Results, flips: Sequence[FlipsOfPair], pictures: Path) -> str:
    """The whole page.

    Args:
        pictures: the folder of the questions' files.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script = ((HERE / f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    return environment.get_template("page.html").render(
        results=results, rules=RULES[::-1], rule_names=RULE_NAMES, verdicts=Verdict, significant=SIGNIFICANT,
        facts=facts_of(results.manifest, results.beside),
        manifest_json=json.dumps(_manifests(results), indent=2, ensure_ascii=False),
        accuracy_plots=_plots(results, accuracy_panels), pass_at_plots=_plots(results, pass_at_panels),
        observers=_observers(results), behaviours=list(Behaviour),
        flips=flips, most_flips=MOST_OF_A_PAIR, flip_data=_flip_data(results, flips, pictures),
        wording=wording,
        style=Markup(style), script=Markup(script),
        style_hash=_content_hash(style), script_hash=_content_hash(script),
    )  # fmt: skip


def _manifests(results: Results) -> dict[str, Any]:
    return {**results.manifest, "beside": results.beside} if results.beside else results.manifest


def _plots(results: Results, panels_of: Any) -> list[Plot]:
    plots = []
    for rule in RULES[::-1]:
        panels = panels_of(results, rule)
        drawn = [(panel, svg_url(panel, LIGHT), svg_url(panel, DARK)) for panel in panels]
        plots.append(Plot(rule, legend_of(panels), drawn))
    return [plot for plot in plots if plot.panels]


def _observers(results: Results) -> list[Observer]:
    """Patterns first, then judges by name; settings in the order of the table."""
    place = {setting: row for row, setting in enumerate(results.settings)}
    observers = []
    for by in sorted({summary.by for summary in results.behaviours}, key=lambda by: (by != "patterns", by)):
        summaries = [summary for summary in results.behaviours if summary.by == by]
        summaries.sort(key=lambda summary: place.get(summary.setting, len(place)))
        most = max(share.high for summary in summaries for share in summary.counts.values())
        observers.append(Observer(by, summaries, most or 1.0))
    return observers


def _flip_data(results: Results, flips: Sequence[FlipsOfPair], pictures: Path) -> dict[str, Any]:
    """What the browser of flipped answers shows: each question, answer and picture once."""
    questions: dict[tuple[str, str], int] = {}
    answers: dict[tuple[str, str, str, int], int] = {}
    told: dict[str, list[Any]] = {"questions": [], "answers": [], "flips": []}

    def answer_of(answer: AnswerRecord) -> int:
        key = (answer.setting, answer.benchmark, answer.question, answer.repeat)
        if key not in answers:
            answers[key] = len(told["answers"])
            told["answers"].append(_answer(results, answer))
        return answers[key]

    for pair in flips:
        for flip in pair.shown:
            key = (flip.benchmark, flip.question)
            if key not in questions:
                questions[key] = len(told["questions"])
                told["questions"].append(_question(results, *key))
            told["flips"].append({
                "question": questions[key], "setting": flip.setting, "direction": flip.direction,
                "before": answer_of(flip.before), "after": answer_of(flip.after),
            })  # fmt: skip
    names = dict.fromkeys(name for question in told["questions"] for name in question["pictures"])
    return {**told, "pictures": {name: embed(pictures / name)._asdict() for name in names}}


def _question(results: Results, benchmark: str, name: str) -> dict[str, Any]:
    told = {"benchmark": benchmark, "title": wording.title(benchmark), "id": name}
    record = results.questions.get((benchmark, name))
    if record is None:
        lost = {"text": "(The run’s folder has no such question.)", "answer": "", "choices": [], "groups": ""}
        return {**told, **lost, "pictures": []}
    return {
        **told, "text": record.text, "answer": record.answer, "choices": record.choices,
        "groups": ", ".join(f"{group} {value}" for group, value in record.groups.items()), "pictures": record.pictures,
    }  # fmt: skip


def _answer(results: Results, answer: AnswerRecord) -> dict[str, Any]:
    cell = results.cells[answer.setting, answer.benchmark]
    share = cell.summary.right["last"][answer.question] if cell.summary else 0.0
    return {
        "setting": answer.setting, "text": answer.text, "outcome": answer.outcome, "tokens": answer.tokens,
        "repeat": answer.repeat, "share": share,
        "last": answer.last.model_dump(), "published": answer.published.model_dump(),
    }  # fmt: skip


def _content_hash(text: str) -> str:
    """What a Content-Security-Policy calls a text that it allows."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
