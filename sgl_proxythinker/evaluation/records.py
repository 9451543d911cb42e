"""What is kept of a run: one line for each question, one for each answer, and what they have in common."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from sgl_proxythinker.evaluation.questions import AnswerKind


class Outcome(StrEnum):
    """What came of a request."""

    ANSWERED = "answered"
    CUT_OFF = "cut_off"  # by the token limit
    EMPTY = "empty"  # an answer without a text
    FAILED = "failed"  # no answer: refused, or an error; it is asked again by the next run


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Grade(_Record):
    """What a rule reads in an answer, and whether it is the question's answer."""

    claim: str  # "": nothing is claimed
    right: bool


class AnswerHead(BaseModel):
    """Which answer it is and what came of it: all that is read of a line where its text is not needed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    benchmark: str
    question: str  # its id
    setting: str
    repeat: int  # from 1 on
    outcome: Outcome
    error: str | None = None  # of a failed request


class AnswerRecord(AnswerHead):
    """One answer to a question under a setting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    tokens: int = 0  # that were generated
    seconds: float = 0.0  # from the request to its answer, with the wait for others
    made_by: dict[str, Any] = {}  # what the server says: strengths, law, experts
    published: Grade  # by the rule of the paper's scripts
    last: Grade  # by the last marked answer


class QuestionRecord(_Record):
    """A question as a reader of the report sees it."""

    benchmark: str
    id: str
    text: str
    kind: AnswerKind
    answer: str
    choices: tuple[str, ...]
    groups: dict[str, str]
    pictures: tuple[str, ...]  # file names in the run's folder `pictures`


class Behaviour(StrEnum):
    """Ways of reasoning that an answer may show (after Gandhi et al. 2025, as the paper counts them)."""

    BACKTRACKING = "backtracking"
    VERIFICATION = "verification"
    SUBGOAL_SETTING = "subgoal_setting"
    BACKWARD_CHAINING = "backward_chaining"


class BehaviourRecord(_Record):
    """How often an answer shows each behaviour, as one observer counts."""

    benchmark: str
    question: str
    setting: str
    repeat: int
    by: str  # "patterns", or the name of a judge
    counts: dict[Behaviour, int]
