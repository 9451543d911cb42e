"""Choices that stand in the text of a question, where a data set has no column for them."""

from __future__ import annotations

import re

_HEADING = re.compile(r"\b(?:choices|options)\s*:", re.IGNORECASE)


def choices_in(question: str) -> tuple[str, ...]:
    """The texts of choices that stand in a question, from A on; empty if there are not two.

    Behind "Choices:" they may share a line, "A: 2 B: 3"; without such a word each begins one.
    """
    headings = list(_HEADING.finditer(question))
    listed = question[headings[-1].end() :] if headings else question
    marks: list[re.Match[str]] = []
    for letter in "ABCDEFGH":
        begin = r"(?:^|\s)" if headings else r"^[ \t]*"
        mark = re.compile(rf"{begin}\(?{letter}\s*[:.)]", re.MULTILINE).search(listed, marks[-1].end() if marks else 0)
        if mark is None:
            break
        marks.append(mark)
    if len(marks) < 2:
        return ()
    ends = [mark.start() for mark in marks[1:]] + [len(listed)]
    return tuple(listed[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True))
