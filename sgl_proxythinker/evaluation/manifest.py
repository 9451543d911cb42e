"""What all answers of a run have in common, and what of it must stay the same when the run goes on."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sgl_proxythinker.evaluation.errors import EvaluationError
from sgl_proxythinker.evaluation.presets import Preset
from sgl_proxythinker.evaluation.records import QuestionRecord

_CLIENT = ("inspect-ai", "openai", "datasets", "math-verify", "pillow")
# Of a server: the rest, as the number of its GPUs, may change between two sessions of a run.
_SAME_MODELS = ("model_path", "revision", "dtype", "quantization", "kv_cache_dtype", "chat_template", "context_length")
_SAME_IF_TOLD = ("tokenizer_path", "mm_process_config")  # folders of before have them not
_SAME_PROXY = ("expert", "amateur", "experts")


def session_of(model: str, server_info: Mapping[str, Any]) -> dict[str, Any]:
    """One start of the command: when, from where, and which server answered."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": model,
        "server": dict(server_info),
        "client": {name: version(name) for name in _CLIENT} | {"python": platform.python_version()},
        "commit": _commit(),
    }


def run_of(preset_name: str, preset: Preset, sampling: dict[str, Any]) -> dict[str, Any]:
    """How every question is asked.

    Args:
        sampling: what each request says of it.
    """
    return {"preset": {"name": preset_name, **preset.model_dump()}, "sampling": sampling}


def fingerprint(questions: Iterable[QuestionRecord]) -> str:
    """The beginning of a SHA-256 over what is asked: texts, choices, answers and pictures."""
    digest = hashlib.sha256()
    for question in questions:
        digest.update(question.model_dump_json().encode())
    return digest.hexdigest()[:16]


def check_same(
    before: Mapping[str, Any], run: Mapping[str, Any], session: Mapping[str, Any], made_by: Mapping[str, Any]
) -> None:
    """A run goes on only as it began.

    Args:
        made_by: of each setting what an answer is made by, the server's defaults included. None, of a plain setting,
            compares with nothing: folders of before have it of guided servers too.

    Raises:
        EvaluationError: another preset, sampling or model, or another setting of the same name; the message names it.
    """
    first = before["sessions"][0]
    pairs = {name: (before["run"][name], run[name]) for name in run}
    pairs |= {f"server's {name}": (first["server"].get(name), session["server"].get(name)) for name in _SAME_MODELS}
    pairs |= {
        f"server's {name}": (first["server"][name], session["server"].get(name))
        for name in _SAME_IF_TOLD
        if name in first["server"]
    }
    ours, theirs = (each["server"].get("proxy") or {} for each in (first, session))
    pairs["model"] = (first["model"], session["model"])
    pairs |= {
        f"setting {name}": (then, now)
        for name, now in made_by.items()
        if (then := before["made_by"].get(name)) is not None
    }
    pairs |= {f"server's {name}": (ours.get(name), theirs.get(name)) for name in _SAME_PROXY}
    for name, (then, now) in pairs.items():
        if then != now:
            raise EvaluationError(
                f"this run began with another {name}: {_difference(then, now)}. Answers under both are no comparison: "
                "give this one another --out."
            )


def _difference(then: Any, now: Any) -> str:
    """Of two mappings the first field that differs."""
    if isinstance(then, dict) and isinstance(now, dict):
        name = next(name for name in {**then, **now} if then.get(name) != now.get(name))
        was, is_now = (repr(each[name]) if name in each else "left out" for each in (then, now))
        return f"its {name} was {was} and is {is_now}"
    return f"it was {then!r} and is {now!r}"


def _commit() -> str | None:
    """Of the checkout that this package is in; None: it is installed from a wheel."""
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=7"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
