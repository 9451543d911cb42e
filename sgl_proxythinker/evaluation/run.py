"""A run: read the questions, ask what has no answer yet, write the report."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from inspect_ai import Task
from inspect_ai import eval as ask_all

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.evaluation.asking.model import model_of
from sgl_proxythinker.evaluation.asking.task import Round, task_of
from sgl_proxythinker.evaluation.benchmarks import BENCHMARKS
from sgl_proxythinker.evaluation.benchmarks.rows import Source
from sgl_proxythinker.evaluation.errors import DataError, EvaluationError
from sgl_proxythinker.evaluation.grading.grader import Grader
from sgl_proxythinker.evaluation.manifest import check_same, fingerprint, run_of, session_of
from sgl_proxythinker.evaluation.plan import Plan
from sgl_proxythinker.evaluation.questions import AnswerKind, Question
from sgl_proxythinker.evaluation.records import Outcome
from sgl_proxythinker.evaluation.report import check_beside, write_report
from sgl_proxythinker.evaluation.run_folder import Asked, RunFolder
from sgl_proxythinker.evaluation.server import ServedModel, Server
from sgl_proxythinker.evaluation.settings import Setting, guidance_of

MOST_REASONS = 5
TASKS_AT_ONCE = 2  # the next one begins while the last answers of one are still written


def run(plan: Plan, server: Server, baseline: str | None, beside: Sequence[RunFolder] = ()) -> int:
    """Ask what is missing and write the report.

    Args:
        beside: other runs, whose settings are rows of the report too.

    Returns:
        How many answers are missing still: of requests that failed, or because the run was ended.

    Raises:
        EvaluationError: the server, a data set or the run's folder is not what the plan needs.
    """
    model, info = server.model(), server.info()
    _check_context(plan, model)
    made_by = {name: _made_by(setting, info, plan.url) for name, setting in plan.settings.items()}
    sources = {name: source.resolved() for name, source in plan.sources.items()}
    questions = {name: _questions(name, source, plan) for name, source in sources.items()}
    folder = RunFolder(plan.out)
    with folder.alone():
        session = session_of(model.name, info)
        _begin(folder, plan, session, sources, questions, made_by)
        check_beside(folder, beside, plan.settings)
        return _ask_and_report(
            folder, plan, server, model.name, questions, made_by, server.is_sglang(info), baseline, beside
        )


def _ask_and_report(
    folder: RunFolder,
    plan: Plan,
    server: Server,
    model: str,
    questions: Mapping[str, Mapping[str, Question]],
    made_by: Mapping[str, Mapping[str, Any] | None],
    is_sglang: bool,
    baseline: str | None,
    beside: Sequence[RunFolder],
) -> int:
    wanted = [
        Asked(benchmark, setting, question, repeat)
        for benchmark, asked in questions.items()
        for setting in plan.settings
        for repeat in range(1, plan.sampling.repeats + 1)
        for question in asked
    ]
    answered = folder.answered()
    missing: dict[tuple[str, str], list[Asked]] = {}
    for each in wanted:
        if each not in answered:
            missing.setdefault((each.benchmark, each.setting), []).append(each)
    problem = None
    if missing:
        with contextlib.closing(Grader()) as grader:
            tasks = [
                task_of(
                    Round(
                        plan.settings[setting], questions[benchmark], part, plan.preset, plan.sampling, server, folder,
                        grader, made_by[setting], is_sglang,
                    )
                )
                for (benchmark, setting), part in missing.items()
            ]  # fmt: skip
            problem = _ask(tasks, model_of(server, model, plan.connections), plan.connections, folder)
    _tell_failures(folder)
    if problem is None:
        report(folder, baseline, beside)
        return len(set(wanted) - folder.answered())
    with contextlib.suppress(EvaluationError):  # what ended the run is the news, not that there is little to report
        report(folder, baseline, beside)
    raise EvaluationError(problem)


def _tell_failures(folder: RunFolder) -> None:
    """Why requests failed, the most frequent reasons first."""
    errors = Counter(head.error for head in folder.heads().values() if head.outcome == Outcome.FAILED)
    for error, count in errors.most_common(MOST_REASONS):
        sys.stderr.write(f"{count:,} failed: {error}\n")


def report(folder: RunFolder, baseline: str | None, beside: Sequence[RunFolder] = ()) -> None:
    """Write the report of what is there.

    Args:
        beside: other runs, whose settings are rows too, and may be the baseline.

    Raises:
        EvaluationError: nothing is, or nothing under the baseline.
    """
    settings = [head.setting for head in folder.heads().values() if head.outcome != Outcome.FAILED]
    usual = "alpha-0" if "alpha-0" in settings or not settings else settings[0]
    for file in write_report(folder, baseline or usual, beside):
        sys.stdout.write(f"{file}\n")


def _check_context(plan: Plan, model: ServedModel) -> None:
    """Of an answer that can't fit, every request would fail.

    Raises:
        EvaluationError: the preset's answers are as long as the context or longer.
    """
    if model.context_tokens is not None and plan.preset.max_tokens >= model.context_tokens:
        raise EvaluationError(
            f"preset {plan.preset_name} asks for answers of {plan.preset.max_tokens:,} tokens, and {model.name} has a "
            f"context of {model.context_tokens:,} for the question too: name another --preset, or a copy with fewer "
            "max_tokens by --presets."
        )


def _ask(tasks: list[Task], model: Any, connections: int, folder: RunFolder) -> str | None:
    """Have inspect-ai ask. What ended it, in words; None: it came to its end, or a person ended it."""
    logs = ask_all(
        tasks, model, max_tasks=TASKS_AT_ONCE, max_samples=connections, log_dir=str(folder.logs),
        display="rich" if sys.stdout.isatty() else "plain", log_images=False, log_realtime=False,
    )  # fmt: skip
    return next((log.error.message for log in logs if log.status == "error" and log.error), None)


def _questions(name: str, source: Source, plan: Plan) -> dict[str, Question]:
    """By id.

    Raises:
        DataError: the data set can't be read, or has two questions of the same id.
    """
    asked: dict[str, Question] = {}
    read = BENCHMARKS[name].questions(source, plan.preset.mathvision)
    wanted = (question for question in read if not (plan.open_only and question.kind == AnswerKind.CHOICE))
    for question in islice(wanted, plan.limit):
        if question.id in asked:
            raise DataError(f"{source.place} has two questions {question.id}")
        asked[question.id] = question
    if not asked:
        raise DataError(f"{source.place} has no question")
    return asked


def _made_by(setting: Setting, info: Mapping[str, Any], url: str) -> dict[str, Any] | None:
    """What answers under a setting have to say of how they were made.

    Raises:
        EvaluationError: this server has no guidance, or refuses this setting.
    """
    if not info.get("proxy"):
        if setting.custom_params is None:
            return None
        raise EvaluationError(
            f"{url} is not guided, so that setting {setting.name} can't be asked there: start it with --plugin "
            "proxythinker and the paths of expert and amateur, or evaluate it as it is by --plain NAME."
        )
    try:
        return guidance_of(setting, info["proxy"])
    except RequestError as problem:
        raise EvaluationError(f"setting {setting.name}: {problem}") from problem


def _begin(
    folder: RunFolder,
    plan: Plan,
    session: dict[str, Any],
    sources: Mapping[str, Source],
    questions: Mapping[str, Mapping[str, Question]],
    made_by: Mapping[str, Any],
) -> None:
    """Write down what is asked.

    Raises:
        EvaluationError: the folder holds answers that were asked in another way, or about other questions; nothing of
            it is changed then.
    """
    before = folder.manifest()
    run = run_of(plan.preset_name, plan.preset, plan.sampling.as_said(Server.is_sglang(session["server"])))
    if before is not None:
        check_same(before, run, session, made_by)
    records = {name: list(map(folder.question_record, asked.values())) for name, asked in questions.items()}
    kept = {(record.benchmark, record.id): record for record in folder.questions()}
    for record in (record for each in records.values() for record in each):
        if kept.setdefault((record.benchmark, record.id), record) != record:
            raise EvaluationError(
                f"question {record.id} of {record.benchmark} is not the one that this run began with: the data set or "
                "the preset's wording has changed. Give this run another --out."
            )
    folder.write_questions(record for each in records.values() for record in each)
    manifest = before or {"run": run, "data": {}, "settings": {}, "made_by": {}, "sessions": []}
    for name, source in sources.items():
        of_benchmark = [record for (benchmark, _), record in kept.items() if benchmark == name]
        manifest["data"][name] = source.describe() | {
            "questions": len(of_benchmark), "fingerprint": fingerprint(of_benchmark),
        }  # fmt: skip
    manifest["settings"] |= {name: setting.custom_params for name, setting in plan.settings.items()}
    manifest["made_by"] |= made_by
    manifest["sessions"].append(session)
    folder.write_manifest(manifest)
