"""Questions under settings, as a task of inspect-ai's: each answer is graded and kept as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageUser, Content, ContentImage, ContentText, GenerateConfig, ModelOutput
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from sgl_proxythinker.evaluation.asking.model import MADE_BY, WRITTEN
from sgl_proxythinker.evaluation.asking.pictures import data_url
from sgl_proxythinker.evaluation.errors import EvaluationError, ServerGone
from sgl_proxythinker.evaluation.grading.grader import Grader
from sgl_proxythinker.evaluation.presets import Preset
from sgl_proxythinker.evaluation.questions import Question
from sgl_proxythinker.evaluation.records import AnswerRecord, Grade, Outcome
from sgl_proxythinker.evaluation.run_folder import Asked, RunFolder
from sgl_proxythinker.evaluation.sampling import Sampling
from sgl_proxythinker.evaluation.server import Server
from sgl_proxythinker.evaluation.settings import Setting
from sgl_proxythinker.guidance import PREFIX, TRACE

RETRIES = 3  # of a request, by inspect-ai: of connections that broke, of 429 and 5xx
WITHIN_S = 3600  # an answer of some thousand tokens, behind all that waits before it; later it counts as broken

_CUT_OFF = ("max_tokens", "model_length")
_NOTHING = Grade(claim="", right=False)


@dataclass(frozen=True)
class Round:
    """A benchmark under a setting: what is asked, how, and where its answers are kept."""

    setting: Setting
    questions: Mapping[str, Question]  # by id
    missing: Sequence[Asked]
    preset: Preset
    sampling: Sampling
    server: Server
    folder: RunFolder
    grader: Grader
    made_by: Mapping[str, Any] | None  # what `meta_info` has to say of an answer; None: of a plain server nothing
    is_sglang: bool


def task_of(part: Round) -> Task:
    """What a round has not answered yet."""
    samples = [
        Sample(id=f"{asked.question}#{asked.repeat}", input="", metadata=asked._asdict()) for asked in part.missing
    ]
    benchmark = part.missing[0].benchmark
    return Task(
        name=f"{benchmark}_{part.setting.name}",
        dataset=MemoryDataset(samples, name=benchmark),
        solver=ask(part),
        scorer=last_marked_answer(),
        config=GenerateConfig(
            max_retries=RETRIES, attempt_timeout=WITHIN_S, **part.sampling.generate_arguments(part.preset.max_tokens)
        ),
        fail_on_error=True,  # what a request may fail by is caught; what comes here ends the run
    )


@solver
def ask(part: Round) -> Solver:
    """Ask, grade, keep. A failed request is kept as failed; a server that is gone ends the run."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        asked = Asked(**state.metadata)
        question = part.questions[asked.question]
        try:
            state.messages = [ChatMessageUser(content=_content(question, part.preset))]
            state = await generate(state, extra_body=_extra_body(part), seed=part.sampling.seed_of(asked.repeat))
            record = await _record(asked, question, state.output, part)
        except Exception as problem:
            if not await asyncio.to_thread(part.server.is_alive):
                raise ServerGone(f"{part.server.url} answers no more: {problem}") from problem
            record = _failed(asked, _reason(problem))
        if record.outcome != Outcome.FAILED:
            _check_strength(record, part)
        part.folder.add(record)
        state.metadata["record"] = record.model_dump(mode="json", exclude={"text", "made_by"})
        # Its pictures would make up most of the log, and are in the run's folder.
        state.messages = [ChatMessageUser(content=question.text), *state.messages[1:]]
        return state

    return solve


@scorer(metrics=[accuracy(), stderr()])
def last_marked_answer() -> Scorer:
    """Right or wrong by the last marked answer, for the accuracy that is shown while it runs."""

    async def score(state: TaskState, target: Target) -> Score:
        record = state.metadata["record"]
        if record["outcome"] == Outcome.FAILED:
            return Score.unscored(reason="scoring_failed", explanation=record["error"])
        return Score(value=int(record["last"]["right"]), answer=record["last"]["claim"], metadata=record)

    return score


def _content(question: Question, preset: Preset) -> list[Content]:
    pictures: list[Content] = [ContentImage(image=data_url(picture.read(), preset)) for picture in question.pictures]
    return [*pictures, ContentText(text=question.text + preset.suffix)]


def _extra_body(part: Round) -> dict[str, Any]:
    fields = part.sampling.fields_of_sglang() if part.is_sglang else {}
    if part.made_by is not None:
        fields |= {"return_meta_info": True}
    if part.setting.custom_params is not None:
        fields |= {"custom_params": part.setting.custom_params}
    return fields


async def _record(asked: Asked, question: Question, output: ModelOutput, part: Round) -> AnswerRecord:
    if output.error is not None or not output.choices:
        return _failed(asked, output.error or "a response without an answer")
    told, cut_off = output.metadata or {}, output.stop_reason in _CUT_OFF
    text = told.get(WRITTEN, "")
    if output.stop_reason not in ("stop", *_CUT_OFF):
        return _failed(asked, f"the answer ended by {output.stop_reason}")
    outcome = Outcome.CUT_OFF if cut_off else Outcome.ANSWERED if text.strip() else Outcome.EMPTY
    grades = await asyncio.to_thread(part.grader.grade, text, question, cut_off, part.preset.answer_in)
    return AnswerRecord(
        **asked._asdict(), outcome=outcome, text=text,
        tokens=output.usage.output_tokens if output.usage else 0, seconds=round(output.time or 0.0, 3),
        made_by=told.get(MADE_BY) or {}, **grades._asdict(),
    )  # fmt: skip


def _reason(problem: BaseException) -> str:
    """What the server said, without the request that inspect-ai puts before it."""
    while (cause := problem.__cause__ or problem.__context__) is not None:
        problem = cause
    lines = [line for line in str(problem).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(problem).__name__


def _failed(asked: Asked, error: str) -> AnswerRecord:
    told = error[:2000].encode("utf-8", "replace").decode()
    return AnswerRecord(
        **asked._asdict(), outcome=Outcome.FAILED, text="", error=told, published=_NOTHING, last=_NOTHING
    )


def _check_strength(record: AnswerRecord, part: Round) -> None:
    """What made the answer, as the server says, is what the setting asks for.

    Raises:
        EvaluationError: it is not.
    """
    if part.made_by is None:
        return
    told = {name: value for name, value in record.made_by.items() if name.startswith(PREFIX) and name != TRACE}
    if told != dict(part.made_by):
        raise EvaluationError(
            f"setting {part.setting.name} asks for {dict(part.made_by)}, and {part.server.url} answered with {told}: "
            "it is not this project's server, or another one than at the start."
        )
