"""Grades in a process of its own: an answer that takes long to compare holds up no other, and is given up."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import NamedTuple

from sgl_proxythinker.evaluation.grading.last import AnswerIn, grade_last, last_claim
from sgl_proxythinker.evaluation.grading.published import first_claim, grade_published
from sgl_proxythinker.evaluation.questions import Question
from sgl_proxythinker.evaluation.records import Grade

logger = logging.getLogger(__name__)

WITHIN_S = 15  # for both rules; a comparison takes some milliseconds


class Grades(NamedTuple):
    """What both rules say."""

    published: Grade
    last: Grade


class Grader:
    """Grades answers, one after another. Any thread may ask.

    Args:
        within_s: seconds after which an answer that is still compared counts as not right.
    """

    def __init__(self, within_s: float = WITHIN_S):
        self._within_s = within_s
        self._turn = threading.Lock()
        self._start()

    def grade(self, text: str, question: Question, cut_off: bool, where: AnswerIn) -> Grades:
        """Wait for the grades of an answer."""
        # A picture is read by what can't be sent to another process.
        job = (text, replace(question, pictures=()), cut_off, where)
        with self._turn:
            try:
                self._pipe.send(job)
                if self._pipe.poll(self._within_s):
                    return self._pipe.recv()
            except (EOFError, OSError):  # it was killed, as by a system without memory
                pass
            self._process.kill()
            self._start()
        logger.warning("question %s of %s: comparing an answer was given up, it counts as not right", question.id,
                       question.benchmark)  # fmt: skip
        return Grades(
            Grade(claim=first_claim(text), right=False), Grade(claim=last_claim(text, cut_off, where), right=False)
        )

    def close(self) -> None:
        self._process.kill()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_grade_all, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # its imports take seconds, which are no answer's


def _grade_all(pipe: Connection) -> None:
    """The other process: until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person who ends the run means the run
    pipe.send(None)
    while True:
        try:
            text, question, cut_off, where = pipe.recv()
        except EOFError:
            return
        pipe.send(Grades(grade_published(text, question), grade_last(text, question, cut_off, where)))
