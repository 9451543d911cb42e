"""The report's numbers as Markdown, for a README."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sgl_proxythinker.evaluation.records import Behaviour
from sgl_proxythinker.evaluation.report import wording
from sgl_proxythinker.evaluation.report.head import Fact, facts_of
from sgl_proxythinker.evaluation.report.plots import Panel, pass_at_panels
from sgl_proxythinker.evaluation.report.results import SIGNIFICANT, Cell, Results, Verdict
from sgl_proxythinker.evaluation.summary import RULES, Rule

TITLES: dict[Rule, str] = {"last": "the last marked answer", "published": "the paper's scripts"}
SIGNS = {Verdict.BETTER: "▲", Verdict.WORSE: "▼", Verdict.UNDECIDED: "≈"}


def as_markdown(results: Results, plots: Sequence[str]) -> str:
    """What was run, and tables: accuracy by both rules, pass@k, tokens and time, behaviours.

    Args:
        plots: file names of PNG pictures beside it.
    """
    parts = ["# What guidance is worth"]
    if facts := facts_of(results.manifest, results.beside):
        parts.append("\n".join(f"- {fact.name}: {_on_one_line(fact)}" for fact in facts))
    if results.unfinished:
        parts.append(
            f"**This run is not finished: {results.unfinished}.** They are counted in the table and are in no share."
        )
    for rule in RULES[::-1]:
        parts += [f"## Accuracy by {TITLES[rule]}", _table(_accuracy_rows(results, rule))]
    parts.append(
        f"Accuracy in percent with its 95 % interval; then the gain over {plain(results.baseline)} in points, over the "
        "questions that both answered, with its 95 % interval and the exact p of the paired test. "
        f"▲ better and ▼ worse: p is below {SIGNIFICANT} and the interval leaves out 0; ≈: no difference shown. "
        "Bold: the highest on its benchmark. "
        f"A table has {wording.plural(results.comparisons, 'such test')}: of twenty without any difference one is "
        "expected to show one."
    )
    parts += [f"![{name.removesuffix('.png').replace('_', ' ')}]({name})" for name in plots]
    for rule in RULES[::-1]:
        for panel in pass_at_panels(results, rule):
            parts += [f"## pass@k on {plain(panel.title)}, by {TITLES[rule]}", _table(_pass_at_rows(panel))]
    parts += [
        "## Tokens and seconds of an answer",
        _table(_cost_rows(results)),
        "Seconds go from the request to its answer, with the wait for others: they compare the load of the server when "
        "it was asked, and settings only where they were asked side by side.",
    ]
    for by in dict.fromkeys(summary.by for summary in results.behaviours):
        parts += [f"## Behaviours in an answer, counted by {plain(by)}", _table(_behaviour_rows(results, by))]
    parts.append("Flipped answers, accuracy by group and the manifest are in [report.html](report.html).")
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """A name in which nothing is markup, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&!$])", r"\\\1", " ".join(text.split()))


def _on_one_line(fact: Fact) -> str:
    return ", ".join(plain(f"{name} {text}" if name else text) for name, text in fact.lines)


def _pass_at_rows(panel: Panel) -> Iterable[list[str]]:
    ks = sorted({k for curve in panel.curves for k, _ in curve.points})
    yield ["setting", *(f"k = {k:g}" for k in ks)]
    for curve in panel.curves:
        shares = dict(curve.points)
        yield [
            plain(curve.name),
            *(
                f"{wording.percent(shares[k].value)} ({wording.percent_interval(shares[k].low, shares[k].high)})"
                if k in shares
                else "–"
                for k in ks
            ),
        ]


def _accuracy_rows(results: Results, rule: Rule) -> Iterable[list[str]]:
    titles = [
        f"{plain(wording.title(benchmark))}<br>{wording.plural(results.size_of(benchmark), 'question')}"
        for benchmark in results.benchmarks
    ]
    several = len(results.benchmarks) > 1
    yield ["setting", *titles, *(["macro average"] if several else [])]
    for setting in results.settings:
        row = [plain(setting)]
        for benchmark in results.benchmarks:
            cell = results.cells.get((setting, benchmark))
            row.append(_cell(cell, rule, results.best(benchmark, rule)) if cell else "not asked")
        yield [*row, *([_macro(results, setting, rule)] if several else [])]


def _cell(cell: Cell, rule: Rule, best: float) -> str:
    parts = ["–"]
    if cell.summary:
        share = cell.summary.accuracy[rule]
        parts = [f"{_bold(share.value, best)} ({wording.percent_interval(share.low, share.high)})"]
    if cell.against_baseline:
        paired = cell.against_baseline[rule]
        interval = wording.points_interval(*paired.interval)
        gain = f"{SIGNS[cell.verdict(rule)]} {wording.points(paired.difference)} ({interval})"
        parts += [gain, wording.p_value(paired.p)]
    if cell.questions < cell.of_questions:
        parts.append(f"only {cell.questions:,} of {wording.plural(cell.of_questions, 'question')}")
    if cell.problems:
        parts.append(wording.counted(cell.problems))
    return "<br>".join(parts)


def _macro(results: Results, setting: str, rule: Rule) -> str:
    average, gain = results.macro(setting, rule), results.macro_gain(setting, rule)
    if average is None:
        return "not on all benchmarks"
    written = _bold(average, results.best_macro(rule))
    return written if gain is None else f"{written}<br>{wording.points(gain)}"


def _bold(value: float, best: float) -> str:
    return f"**{wording.percent(value)}**" if value == best else wording.percent(value)


def _cost_rows(results: Results) -> Iterable[list[str]]:
    yield ["setting", *(plain(wording.title(benchmark)) for benchmark in results.benchmarks)]
    for setting in results.settings:
        summaries = {summary.benchmark: summary for summary in results.summaries(setting)}
        yield [
            plain(setting),
            *(
                f"{summaries[benchmark].tokens:,.0f} / {summaries[benchmark].seconds:,.1f} s"
                if benchmark in summaries
                else "–"
                for benchmark in results.benchmarks
            ),
        ]


def _behaviour_rows(results: Results, by: str) -> Iterable[list[str]]:
    yield ["setting", *(behaviour.replace("_", " ") for behaviour in Behaviour), "answers"]
    for summary in results.behaviours:
        if summary.by == by:
            counts = [summary.counts[behaviour] for behaviour in Behaviour]
            yield [
                plain(summary.setting),
                *(f"{share.value:.2f} ({share.low:.2f}–{share.high:.2f})" for share in counts),
                f"{summary.answers:,}",
            ]


def _table(rows: Iterable[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---", *("--:" for _ in head[1:])], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
