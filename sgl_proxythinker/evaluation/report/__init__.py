"""The report of a run: one HTML page that loads nothing, the same numbers in Markdown, and plots as PNG."""

from sgl_proxythinker.evaluation.report.writing import write_report

__all__ = ["write_report"]
