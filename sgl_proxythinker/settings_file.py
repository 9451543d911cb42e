"""The YAML file of `--proxy-config`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sgl_proxythinker.errors import LaunchError


class _EachNameOnce(yaml.SafeLoader):
    """YAML's plain types; of a name that stands twice PyYAML takes the last value and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value!r} stands there twice, again in line {line}"
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_settings(file: str) -> dict[str, Any]:
    """The mapping that a person wrote.

    Raises:
        LaunchError: it can't be read, is no mapping, or has a name twice.
    """
    try:
        values = yaml.load(Path(file).read_text(), _EachNameOnce)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LaunchError(f"--proxy-config {file!r} can't be read: {error}") from None
    if not isinstance(values, dict):
        raise LaunchError(
            f"--proxy-config {file!r} holds {type(values).__name__}, not a mapping such as "
            "{expert_path: E, amateur_path: A, alpha: 0.5}."
        )
    limits = values.get("limits")
    for name in (*values, *(limits if isinstance(limits, dict) else ())):
        if not isinstance(name, str):
            raise LaunchError(f"--proxy-config {file!r} has {name!r} for a name: names are words.")
    if wrong := [name for name in values if "-" in name]:
        raise LaunchError(f"--proxy-config {file!r} has {wrong[0]!r}: write it as {wrong[0].replace('-', '_')!r}.")
    return values
