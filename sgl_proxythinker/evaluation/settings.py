"""Settings: what the same questions are asked under. One server answers all of them, since each is `custom_params`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.evaluation.errors import EvaluationError
from sgl_proxythinker.guidance import ALPHA, AMATEUR_ALPHA, Defaults, read_guidance
from sgl_proxythinker.laws import read_law
from sgl_proxythinker.roles import AMATEUR, EXPERT

_NONE = Defaults()  # every setting says its strength itself


class Setting(BaseModel):
    """One row of the table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    custom_params: dict[str, Any] | None = None  # None: the server is asked as any server is


def by_strength(alphas: Sequence[float], without_amateur: bool) -> list[Setting]:
    """`alpha-X` for each strength, and `no-amateur-X`: base + X * expert alone, for each that is not 0."""
    settings = [Setting(name=f"alpha-{alpha:g}", custom_params={ALPHA: alpha}) for alpha in alphas]
    if without_amateur:
        settings += [
            Setting(name=f"no-amateur-{alpha:g}", custom_params={ALPHA: alpha, AMATEUR_ALPHA: 0.0})
            for alpha in alphas
            if alpha
        ]
    return settings


def read_settings(path: Path) -> list[Setting]:
    """A YAML file of names and `custom_params`: laws, several experts, cuts.

    Raises:
        EvaluationError: no such file, no mapping of mappings, or `custom_params` that no server takes.
    """
    try:
        listed = TypeAdapter(dict[str, dict[str, Any]]).validate_python(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as problem:
        raise EvaluationError(
            f"settings can't be read from {path}: {problem}\nA line of it: `name: {{proxy_alpha: 0.5}}`."
        ) from problem
    settings = []
    for name, params in listed.items():
        try:
            read_guidance(params, _NONE, None)
        except RequestError as problem:
            raise EvaluationError(f"setting {name} of {path}: {problem}") from problem
        settings.append(Setting(name=name, custom_params=params))
    return settings


def all_different(settings: Sequence[Setting]) -> dict[str, Setting]:
    """By name.

    Raises:
        EvaluationError: two have the same name, or there is none.
    """
    by_name: dict[str, Setting] = {}
    for setting in settings:
        if by_name.setdefault(setting.name, setting) != setting:
            raise EvaluationError(f"two settings are called {setting.name}: give one of them another name.")
    if not by_name:
        raise EvaluationError("nothing is asked for: say --alphas, --settings or --plain.")
    return by_name


def guidance_of(setting: Setting, proxy: Mapping[str, Any]) -> dict[str, Any]:
    """What a guided server says in `meta_info` of an answer under a setting.

    Args:
        proxy: the field of that name in its `/server_info`.

    Raises:
        RequestError: this server refuses such a request.
    """
    pairs = dict.fromkeys((str(EXPERT), *proxy["experts"]), str(AMATEUR))  # whose it is changes nothing in `meta_info`
    law = None if proxy["law"] is None else read_law(proxy["law"])
    default = Defaults(proxy["alpha"], law, proxy["clip"], proxy["plausible"])
    return read_guidance(setting.custom_params, default, pairs).as_params()
