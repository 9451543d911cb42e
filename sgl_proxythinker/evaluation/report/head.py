"""What was run, in a few lines from a run's manifest: models, server, data, preset, sampling, dates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sgl_proxythinker.evaluation.report.joined import used_sampling
from sgl_proxythinker.evaluation.report.results import WITH_AMATEUR, WITHOUT_AMATEUR, strength_in

_OF_SERVER = ("version", "dtype", "quantization", "kv_cache_dtype", "attention_backend", "tp_size")
_REVISION_CHARACTERS = 12


class Fact(NamedTuple):
    """One thing that was the same for all answers."""

    name: str
    lines: list[tuple[str, str]]  # names and texts


def facts_of(manifest: Mapping[str, Any], beside: Mapping[str, Mapping[str, Any]]) -> list[Fact]:
    """Those that a run's manifest has, and what is other in runs beside it. A page shows the whole manifests too.

    Args:
        beside: their manifests, by the names of their settings.
    """
    sessions = manifest.get("sessions") or [{}]
    run, last = manifest.get("run") or {}, sessions[-1]
    preset = run.get("preset") or {}
    facts = [
        Fact("models", _models(last)),
        Fact("server", _told(last.get("server") or {}, _OF_SERVER)),
        Fact("asked", _dates([session["date"] for session in sessions if "date" in session])),
        Fact("data sets", [(name, _source(data)) for name, data in (manifest.get("data") or {}).items()]),
        Fact("preset", _told(preset, ("name", "source", "suffix", "min_pixels", "max_pixels", "max_tokens"))),
        Fact("sampling", _told(used_sampling(manifest))),
        Fact("settings", _laws(manifest.get("settings") or {})),
        Fact("client", _told(last, ("commit",))),
    ]
    facts += [Fact(settings, _of_another_run(told)) for settings, told in beside.items()]
    return [fact for fact in facts if fact.lines]


def _of_another_run(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    sessions = manifest.get("sessions") or [{}]
    preset = (manifest.get("run") or {}).get("preset") or {}
    asked = _told(
        {"preset": preset.get("name"), "suffix": preset.get("suffix"), "max_tokens": preset.get("max_tokens")}
    )
    server = _told(sessions[-1].get("server") or {}, _OF_SERVER)
    laws = _laws(manifest.get("settings") or {})
    return [*_models(sessions[-1]), *server, *asked, *laws, *_dates([str(sessions[-1].get("date"))])]


def _models(session: Mapping[str, Any]) -> list[tuple[str, str]]:
    server = session.get("server") or {}
    proxy = server.get("proxy") or {}
    base = server.get("model_path") or session.get("model")
    models = {"base": base, "expert": proxy.get("expert"), "amateur": proxy.get("amateur")}
    return [(role, str(name)) for role, name in models.items() if name]


def _told(held: Mapping[str, Any], names: tuple[str, ...] | None = None) -> list[tuple[str, str]]:
    wanted = names or tuple(held)
    return [(name.replace("_", " "), str(held[name])) for name in wanted if held.get(name) is not None]


def _dates(dates: list[str]) -> list[tuple[str, str]]:
    if len(dates) < 2:
        return [("", date) for date in dates]
    return [("from", dates[0]), ("to", dates[-1]), ("starts", str(len(dates)))]


def _source(data: Mapping[str, Any]) -> str:
    revision = data.get("revision")
    return f"{data.get('place')}@{str(revision)[:_REVISION_CHARACTERS]}" if revision else str(data.get("place"))


def _laws(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings whose names do not say what they are."""
    return [
        (name, json.dumps(params, ensure_ascii=False) if params is not None else "the server as it is")
        for name, params in settings.items()
        if strength_in(name, WITH_AMATEUR) is None and strength_in(name, WITHOUT_AMATEUR) is None
    ]
