"""Writing the report of a run into its folder: `report.html`, `report.md` and plots as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sgl_proxythinker.evaluation.report.flips import flips_of
from sgl_proxythinker.evaluation.report.markdown import as_markdown
from sgl_proxythinker.evaluation.report.page import as_page
from sgl_proxythinker.evaluation.report.plots import accuracy_panels, pass_at_panels, write_png
from sgl_proxythinker.evaluation.report.results import results_of
from sgl_proxythinker.evaluation.run_folder import RunFolder


def write_report(folder: RunFolder, baseline: str, beside: Sequence[RunFolder] = ()) -> list[Path]:
    """Write what a run's answers are worth into its folder, and return the files.

    Args:
        baseline: the setting that others are compared with, mostly "alpha-0": the base alone.
        beside: other runs, whose settings are rows of this report too.

    Raises:
        EvaluationError: there is no answer yet, or none under `baseline`; runs that can't be compared.
    """
    results = results_of(folder, baseline, beside)
    plots = {}
    for name, panels in (("accuracy.png", accuracy_panels), ("pass_at_k.png", pass_at_panels)):
        if drawn := panels(results, "last"):
            write_png(drawn, folder.path / name)
            plots[name] = folder.path / name
    page, markdown = folder.path / "report.html", folder.path / "report.md"
    page.write_text(as_page(results, flips_of(results), folder.pictures), "utf-8")
    markdown.write_text(as_markdown(results, list(plots)), "utf-8")
    return [page, markdown, *plots.values()]
