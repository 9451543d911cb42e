"""What a model's name carries, `NAME+EXPERT@0.8`: it survives clients and routers that drop fields they don't know."""

from __future__ import annotations

from typing import Any, NamedTuple

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.laws import MAX_ALPHA
from sgl_proxythinker.sentences import shown


class ModelName(NamedTuple):
    """What of guidance a name says; None is what the request says elsewhere, or the server's default."""

    expert: str | None = None
    alpha: float | None = None


def read_model_name(model: Any, served_name: str) -> ModelName:
    """The expert and the strength that a model's name carries. Whether there is such an expert is not asked here.

    Args:
        model: the body's `model`, as it came.
        served_name: the name that the server was started with, exactly.

    Raises:
        RequestError: a name with a `+` or an `@` that is not the served one with an expert or a number behind it.
    """
    if not isinstance(model, str) or not {"+", "@"} & set(model) or model == served_name:
        return ModelName()
    if not model.startswith(served_name):
        raise RequestError(
            f"model is {shown(model)}: with a + or an @ it has to begin with this server's own name, which is "
            f"{_told(served_name)}. NAME@0.8 is a strength of 0.8, NAME@0 is the base alone."
        )
    said, has_alpha, number = model.removeprefix(served_name).rpartition("@")
    expert, alpha = (said, _strength(number)) if has_alpha else (number, None)
    is_expert = expert.startswith("+") and len(expert) > 1
    if (expert and not is_expert) or (has_alpha and alpha is None):
        raise RequestError(
            f"model is {shown(model)}: with a + or an @ it has to be NAME+EXPERT, NAME@STRENGTH or "
            "NAME+EXPERT@STRENGTH, the strength a number. NAME@0.8 is a strength of 0.8, NAME@0 is the base alone."
        )
    if alpha is not None and not -MAX_ALPHA <= alpha <= MAX_ALPHA:  # NaN is in no range
        raise RequestError(
            f"model is {shown(model)}: a strength is a finite number in [-{MAX_ALPHA:g}, {MAX_ALPHA:g}]."
        )
    return ModelName(expert[1:] or None, alpha)


def _strength(number: str) -> float | None:
    """None of what is no number as people write it; -0 is 0."""
    if not number.isascii() or number != number.strip() or "_" in number:
        return None
    try:
        return float(number) + 0.0
    except ValueError:
        return None


def _told(served_name: str) -> str:
    """Without `--served-model-name` it is the checkpoint's path, and errors tell no paths."""
    return "the one that /v1/models lists" if served_name.startswith("/") else shown(served_name)
