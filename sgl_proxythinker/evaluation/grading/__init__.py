"""What an answer claims, and whether it is right: by the rule of the paper's scripts, and by the last marked answer."""

from sgl_proxythinker.evaluation.grading.last import grade_last
from sgl_proxythinker.evaluation.grading.published import grade_published

__all__ = ["grade_last", "grade_published"]
