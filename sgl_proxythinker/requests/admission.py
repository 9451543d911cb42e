"""Admit a request to generate, or say why not: types, ranges, its id, its strength, before SGLang reads any of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.guards.token_bytes import is_byte_level
from sgl_proxythinker.guidance import (
    ALPHA,
    CARRIED,
    EXPERT_NAME,
    EXPERT_WEIGHTS,
    LAW,
    PLAUSIBLE,
    TRACE,
    Defaults,
    Guidance,
    read_guidance,
)
from sgl_proxythinker.policy.bounds import Bounds
from sgl_proxythinker.policy.generate_fields import check_request, prompts_of
from sgl_proxythinker.policy.sampling_fields import check_minimum
from sgl_proxythinker.requests.call import HttpCall
from sgl_proxythinker.requests.request_ids import make_unique
from sgl_proxythinker.sentences import shown


def check_fields(obj: Any, bounds: Bounds, config: ProxyConfig | None, call: HttpCall | None) -> None:
    """Check the fields of a request by themselves.

    Args:
        obj: SGLang's `GenerateReqInput`, as a route or the offline engine made it.
        config: the server's proxies, or None for a server that serves the base alone.
        call: the HTTP request that it is of; None in the offline engine.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    if call is not None:
        call.is_read = True
    names = {} if call is None else call.names
    if call is None:  # of an HTTP body it is checked before SGLang adds its own stops
        params = obj.sampling_params
        for one in params if isinstance(params, list) else [params]:
            if isinstance(one, dict):
                check_minimum(one.get("min_new_tokens"), "min_new_tokens", one)
    check_request(obj, bounds, config is not None, lambda field: names.get(field, field))


def admit_request(
    obj: Any, config: ProxyConfig | None, call: HttpCall | None, live: Iterable[str], starting: bool
) -> list[Guidance]:
    """Make the id of a checked request unique, and put what each prompt asks of guidance into its `custom_params`.

    Args:
        obj: as for `check_fields`; changed in place.
        config: as for `check_fields`.
        call: as for `check_fields`.
        live: ids inside of the requests that are under way.
        starting: the server is warming up; its own requests name no strength.

    Returns:
        What each prompt asks of guidance, in their order.

    Raises:
        RequestError: HTTP 400 with the reason.
    """
    obj.rid = make_unique(obj.rid, live)
    params = obj.sampling_params
    admitted = [
        _with_guidance(one, config, call, starting) for one in (params if isinstance(params, list) else [params])
    ]
    obj.sampling_params = [one for one, _ in admitted] if isinstance(params, list) else admitted[0][0]
    guidances = [guidance for _, guidance in admitted]
    if not isinstance(params, list):
        guidances *= prompts_of(obj.text, obj.input_ids) or 1
    if call is not None:
        call.guidance = guidances
    return guidances


def refuse_unread_markers(obj: Any, tokenizer: Any) -> None:
    """Other tokenizers than byte-level ones write a text otherwise than its tokens one by one.

    Args:
        obj: an admitted request.
        tokenizer: of the server's models.

    Raises:
        RequestError: HTTP 400: its law has a marker, which could be overlooked.
    """
    params = obj.sampling_params
    laws = [one["custom_params"][CARRIED].law for one in (params if isinstance(params, list) else [params])]
    if any(law is not None and law.after is not None for law in laws) and not is_byte_level(tokenizer):
        raise RequestError(
            f"{LAW} changes the strength after a text, and the tokens of this server's models are not the bytes of "
            "what is written, so it could be overlooked: leave after out."
        )


def _with_guidance(
    params: dict[str, Any] | None, config: ProxyConfig | None, call: HttpCall | None, starting: bool
) -> tuple[dict[str, Any], Guidance]:
    """The parameters with what was read of their `custom_params` in their place; and that."""
    params = dict(params or {})
    asked = _guidance_params(params.get("custom_params"), call)
    default, pairs = (Defaults(), {}) if config is None else (config.defaults, config.pairs)
    guidance = read_guidance(asked, default, pairs)
    # Of the laws a schedule alone says a strength; others go over one.
    scheduled = guidance.law is not None and guidance.law.schedule is not None
    names = (ALPHA, EXPERT_WEIGHTS, LAW) if scheduled else (ALPHA, EXPERT_WEIGHTS)
    named = isinstance(asked, dict) and any(asked.get(name) is not None for name in names)
    if config is None:
        _refuse_without_proxies(guidance)
    elif config.require_strength and not named and not starting:
        raise RequestError(
            f"the request names no strength, and this server was started with --proxy-require-strength: send "
            f'custom_params {{"{ALPHA}": {config.alpha:g}}}{_place(call)}, or it in the name of the model, such as '
            f"NAME@{config.alpha:g}."
        )
    params["custom_params"] = {CARRIED: guidance}
    if params.get("n", 1) is None:  # the default, as of every field; SGLang compares it with a number
        del params["n"]
    return params, guidance


def _refuse_without_proxies(guidance: Guidance) -> None:
    if not guidance.is_base_alone:
        raise RequestError(
            f"this server runs the base model alone and can't guide it ({ALPHA} is {guidance.weights[0]:g}). Start "
            "it with --proxy-expert-path and --proxy-amateur-path, or leave custom_params out."
        )
    if guidance.plausible is not None:
        raise RequestError(
            f"this server runs the base model alone, as plain SGLang does, which can't rule out what {PLAUSIBLE} does: "
            "send min_p, or start it with --proxy-expert-path and --proxy-amateur-path."
        )
    if guidance.trace:
        raise RequestError(
            f"this server runs the base model alone, so there is no expert whose influence {TRACE} could show. "
            "Start it with --proxy-expert-path and --proxy-amateur-path, or leave custom_params out."
        )


def _place(call: HttpCall | None) -> str:
    return "" if call is not None and call.speaks_openai else " in sampling_params"


def _guidance_params(custom_params: Any, call: HttpCall | None) -> Any:
    """What a request says of guidance, wherever it may say it: in its parameters, its body, the name of its model."""
    if call is None:
        return custom_params
    if call.custom_params is not None:
        custom_params = call.custom_params
    named = {EXPERT_NAME: call.model.expert, ALPHA: call.model.alpha}
    named = {field: value for field, value in named.items() if value is not None}
    if not named:
        return custom_params
    if custom_params is None:
        return named
    if not isinstance(custom_params, dict):
        return custom_params  # `read_guidance` says what is wrong with it
    for field, value in named.items():
        given = custom_params.get(field)
        if given is not None and given != value:
            what = f"a strength of {value:g}" if field == ALPHA else f"the expert {value}"
            raise RequestError(f"the name of the model says {what} and {field} {shown(given)}: send one of them.")
    return {**custom_params, **named}


def refuse_lost_trace(custom_params: Any, path: str) -> None:
    """A trace travels in `meta_info`, and some routes have none.

    Raises:
        RequestError: the body of a route without `meta_info` asks for one.
    """
    if isinstance(custom_params, dict) and custom_params.get(TRACE):
        raise RequestError(
            f"{TRACE} has no place in this answer of {path}: ask /generate, or chat with return_meta_info and without "
            "stream."
        )
