"""The report of a run: one HTML page that loads nothing, the same numbers in Markdown, and plots as PNG."""

from sgl_proxythinker.evaluation.report.joined import check_beside
from sgl_proxythinker.evaluation.report.writing import write_report

__all__ = ["check_beside", "write_report"]
