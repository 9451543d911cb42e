"""A strength in the model's name, `NAME@0.8`: what survives clients and routers that drop fields they don't know."""

from __future__ import annotations

from typing import Any

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guidance import MAX_ALPHA
from sgl_proxythinker.sentences import shown


def read_model_name(model: Any, served_name: str) -> float | None:
    """The strength that a model's name carries; None for a name without one.

    Args:
        model: the body's `model`, as it came.
        served_name: the name that the server was started with, exactly.

    Raises:
        RequestError: a name with an `@` that is not the served one with a number behind it.
    """
    if not isinstance(model, str) or "@" not in model or model == served_name:
        return None
    name, _, number = model.rpartition("@")
    try:
        alpha = float(number)
    except ValueError:
        alpha = None
    if name != served_name or alpha is None or not number.isascii() or number != number.strip() or "_" in number:
        raise RequestError(
            f"model is {shown(model)}: with an @ it has to be NAME@STRENGTH, where NAME is {_told(served_name)}: "
            "NAME@0.8 is a strength of 0.8, NAME@0 is the base alone."
        )
    if not -MAX_ALPHA <= alpha <= MAX_ALPHA:  # NaN is in no range
        raise RequestError(
            f"model is {shown(model)}: a strength is a finite number in [-{MAX_ALPHA:g}, {MAX_ALPHA:g}]."
        )
    return alpha + 0.0  # -0 is 0


def _told(served_name: str) -> str:
    """Without `--served-model-name` it is the checkpoint's path, and errors tell no paths."""
    return "the one that /v1/models lists" if served_name.startswith("/") else shown(served_name)
