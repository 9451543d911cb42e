"""How an interrupted training goes on: with the settings that it began with, and a log in which no step comes twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

import torch
from pydantic import BaseModel


def load_state(file: Path, settings: BaseModel) -> dict[str, Any] | None:
    """What `save_state` wrote, tensors on the CPU; None if nothing did.

    Raises:
        ValueError: it was written under other settings.
    """
    if not file.exists():
        return None
    saved = torch.load(file, map_location="cpu")
    if saved["settings"] != settings.model_dump():
        raise ValueError(f"{file} was begun with {saved['settings']}: go on with these, or use another folder")
    return saved


def save_state(file: Path, settings: BaseModel, step: int, state: dict[str, Any]) -> None:
    """`step` steps are done."""
    torch.save({"settings": settings.model_dump(), "step": step, **state}, file)


def open_log(file: Path, done: int) -> TextIO:
    """To append to, after the rows of the first `done` steps: later ones are of steps that are done again."""
    rows = file.read_text().splitlines() if file.exists() else []
    file.write_text("".join(f"{row}\n" for row in rows if json.loads(row)["step"] <= done))
    return file.open("a")
