"""The evaluation in inspect-ai's terms: dataset, solver and scorer, each usable without the others, and their task.

Another dataset joins with a task of its own that takes the same solver, the same settings and its own scorer.
"""

from __future__ import annotations

import functools

from inspect_ai import Epochs, Task, task
from inspect_ai.dataset import Dataset, MemoryDataset, Sample
from inspect_ai.model import ChatMessage, ChatMessageUser, ContentImage, ContentReasoning, ContentText, GenerateConfig
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState, generate

from sgl_proxythinker.programs.pictures import data_url
from sgl_proxythinker.tiny_family.grading import is_right, read_answer
from sgl_proxythinker.tiny_family.problems import Problem, problems
from sgl_proxythinker.tiny_family.settings import ANSWER_TOKENS, PASS_AT, SETTINGS, Setting

RETRIES = 3  # of a request; a server that is gone stays gone


@functools.cache
def _problem(split: str, index: int) -> tuple[Problem, str]:
    """The problem and its picture's URL, made once in a process."""
    (one,) = problems(split, 1, index)
    return one, data_url(one.picture())


def problem_dataset(split: str, start: int, stop: int, blind: bool) -> Dataset:
    """Problems `start` to `stop` of a split, in the order of the split."""
    samples = []
    for index in range(start, stop):
        problem, url = _problem(split, index)
        content = [ContentText(text=problem.question)]
        if not blind:
            content.insert(0, ContentImage(image=url))
        metadata = {"kind": problem.kind, "level": problem.level}
        message = ChatMessageUser(content=content)
        samples.append(Sample(id=index, input=[message], target=problem.answer, metadata=metadata))
    return MemoryDataset(samples, name=f"tiny-family-{split}")


def written(message: ChatMessage) -> str:
    """What the model wrote: inspect-ai takes `<think>...</think>` out of the text of a message."""
    if isinstance(message.content, str):
        return message.content
    parts = (
        f"<think>\n{part.reasoning}\n</think>" if isinstance(part, ContentReasoning) else part.text
        for part in message.content
    )
    return "".join(parts)


@scorer(metrics=[accuracy(), stderr()])
def exact_answer() -> Scorer:
    """Whether the answer is the problem's, and how it came about."""

    async def score(state: TaskState, target: Target) -> Score:
        text = written(state.output.message)
        reading, cut_off = read_answer(text), state.output.stop_reason == "max_tokens"
        metadata = {
            "thinks": reading.thinks, "verifies": reading.verifies, "backtracks": reading.backtracks,
            "tokens": state.output.usage.output_tokens, "cut_off": cut_off,
        }  # fmt: skip
        return Score(
            value=int(is_right(text, target.text) and not cut_off), answer=reading.claim[:40], metadata=metadata
        )

    return score


def generate_config(setting: Setting) -> GenerateConfig:
    return GenerateConfig(
        temperature=setting.temperature, max_tokens=ANSWER_TOKENS, extra_body=setting.extra_body(), max_retries=RETRIES
    )


@task
def tiny_family(setting: str, split: str, start: int, stop: int, epochs: int = 1) -> Task:
    """Problems `start` to `stop` of a split under a setting; `epochs` answers to each."""
    chosen = SETTINGS[setting]
    return Task(
        dataset=problem_dataset(split, start, stop, chosen.blind),
        solver=generate(),
        scorer=exact_answer(),
        config=generate_config(chosen),
        epochs=Epochs(epochs, [f"pass_at_{k}" for k in PASS_AT if k <= epochs]) if chosen.sampled else None,
    )
