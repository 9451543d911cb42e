"""How a question with choices is put into words where the data set has no words for it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from sgl_proxythinker.evaluation.grading.choices import letter

_PLACE = re.compile(r"\{(question|choices|letter|text)\}")


class Wording(BaseModel):
    """Templates with `{question}`, `{choices}`, and in `choice` `{letter}` and `{text}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    with_choices: str
    without_choices: str
    choice: str

    def text(self, question: str, choices: Sequence[str]) -> str:
        """The question as it is asked."""
        if not choices:
            return _filled(self.without_choices, question=question)
        listed = (_filled(self.choice, letter=letter(index), text=text) for index, text in enumerate(choices))
        return _filled(self.with_choices, question=question, choices="\n".join(listed))


def _filled(template: str, **values: str) -> str:
    """In one pass: values hold braces themselves, LaTeX's, so that a template is no format string."""
    return _PLACE.sub(lambda place: values.get(place.group(1), place.group(0)), template)
