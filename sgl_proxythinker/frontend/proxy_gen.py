"""`proxy_gen`: `sgl.gen` with a strength of guidance, and with evidence of it, for SGLang programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guidance import (
    ALPHA,
    AMATEUR_ALPHA,
    CLIP,
    EXPERT_NAME,
    EXPERT_WEIGHTS,
    LAW,
    PLAUSIBLE,
    TRACE,
    Defaults,
    read_guidance,
)
from sgl_proxythinker.upstream.frontend_language import ChoicesSamplingMethod, SglArgument, SglExpr, SglSelect, gen

_NEEDS = "proxy_gen with an alpha or a trace needs sgl_proxythinker.ProxyBackend; this backend can't guide"


def proxy_gen(
    name: str | None = None,
    *args: Any,
    alpha: float | None = None,
    amateur_alpha: float | None = None,
    law: Any = None,
    clip: float | None = None,
    plausible: float | None = None,
    expert: str | None = None,
    experts: dict[str, float] | None = None,
    trace: bool = False,
    **options: Any,
) -> SglExpr:
    """Generate, guided with strength `alpha`, inside an `@sgl.function` that runs on a `ProxyBackend`.

    Args:
        name: the variable that the text is stored in.
        alpha: weight of `expert - amateur`; 0 is the base model alone. None: the backend's default, else the server's.
        amateur_alpha: weight of the amateur alone, where it is to be another one; 0 leaves the amateur out.
        law: how the strength changes from token to token, as in `proxy_law` (docs/laws.md): a dict, or a list of them.
        clip: expert - amateur is cut to [-clip, clip] logits before it is weighted.
        plausible: ids whose probability under the base is below this share of its best id's can't be drawn.
        expert: the name of the server's expert that steers; None: the server's default one.
        experts: in place of `alpha`, the strengths of several experts by their names.
        trace: put into the variable's `meta_info["proxy_trace"]` what each model said of each token.
        args, options: those of `sgl.gen`, `choices` included: they are scored under the fused distribution.

    Raises:
        RequestError: a weight is no finite number in [-10, 10], trace is no bool, law, clip or plausible is none, two
            of them have no meaning together, or choices have a trace, a law that counts tokens, or ids that can't be
            drawn.
    """
    expression = gen(name, *args, **options)
    # A batch is traced first, with stand-ins for the program's arguments, to find out how all its programs begin.
    # Nothing is generated meanwhile.
    asked = {
        ALPHA: alpha, AMATEUR_ALPHA: amateur_alpha, LAW: law, CLIP: clip, PLAUSIBLE: plausible, EXPERT_NAME: expert,
        EXPERT_WEIGHTS: experts, TRACE: trace,
    }  # fmt: skip
    if any(map(_holds_argument, asked.values())):
        return expression
    guidance = read_guidance(asked, Defaults(), pairs=None)
    params = {name: value for name, value in asked.items() if value is not None and value is not False}
    if not params:
        return expression
    if isinstance(expression, SglSelect):
        if trace:
            raise RequestError("choices are scored, not generated, so they have no trace: leave trace or choices out")
        if guidance.law is not None and guidance.law.replaces_alpha:
            raise RequestError(
                "choices are scored, not generated, so a law that counts generated tokens has nothing to count: leave "
                "the schedule or the divergence out, or choices"
            )
        if guidance.plausible is not None:
            raise RequestError(
                "choices are scored, not drawn, and one that can't be drawn would have no score: leave plausible or "
                "choices out"
            )
        expression.choices_method = GuidedChoices(expression.choices_method, params)
    else:
        sampling_params = expression.sampling_params
        # SGLang's interpreter hands on only the fields that it knows. It never looks into this one, and backends refuse
        # a dtype that they don't know, so none of them ignores a strength.
        sampling_params.dtype = GuidedType(sampling_params.dtype, params)
    return expression


def _holds_argument(option: Any) -> bool:
    """Whether it is a stand-in for a program's argument, or has one inside."""
    inside = option.values() if isinstance(option, dict) else option if isinstance(option, list | tuple) else ()
    return isinstance(option, SglArgument) or any(map(_holds_argument, inside))


@dataclass(frozen=True)
class GuidedType:
    """The `dtype` of a call and what it says of guidance."""

    dtype: Any
    params: dict[str, Any]

    def __str__(self) -> str:
        return _NEEDS

    __repr__ = __str__


@dataclass(frozen=True)
class GuidedChoices(ChoicesSamplingMethod):
    """How to choose and what the call says of guidance."""

    method: ChoicesSamplingMethod
    params: dict[str, Any]

    def __call__(self, **scores: Any) -> Any:
        """Called by backends that don't know it, with the scores of an unguided model.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(_NEEDS)
