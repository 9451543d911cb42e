"""The flags that this plugin adds to SGLang's command line."""

from __future__ import annotations

import argparse
import json
from typing import Any

from sgl_proxythinker.config import flag_of
from sgl_proxythinker.limits import Limits
from sgl_proxythinker.placement import NAMES
from sgl_proxythinker.server import NAME


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON") from None


def _named_path(text: str) -> tuple[str, str]:
    name, is_given, path = text.partition("=")
    if not (name and is_given and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, path


_FLAGS: dict[str, dict[str, Any]] = {
    "expert_path": dict(metavar="PATH", help="The small RL-tuned model, a local path or a hub id."),
    "amateur_path": dict(metavar="PATH", help="The same small model before RL."),
    "experts": dict(
        type=_named_path,
        action="append",
        metavar="NAME=PATH",
        help="One more expert, any number of times; it shares the amateur, unless the file says its own. Per request: "
        'custom_params {"proxy_expert": NAME}, or "proxy_experts" with a strength for each of several.',
    ),
    "alpha": dict(
        type=float,
        metavar="X",
        help="Steering strength of requests that name none (default: 0.5; 0 is the base alone). Per request: "
        'custom_params {"proxy_alpha": X}.',
    ),
    "law": dict(
        type=_json,
        metavar="JSON",
        help="How the strength changes from token to token, of requests that name neither a strength nor a law "
        '(default: not at all), such as \'{"kind": "entropy", "above": 0.7}\'. Per request: proxy_law.',
    ),
    "clip": dict(
        type=float,
        metavar="C",
        help="Cut expert - amateur to [-C, C] logits before it is weighted (default: not at all). Per request: "
        "proxy_clip.",
    ),
    "plausible": dict(
        type=float,
        metavar="R",
        help="Let no id be drawn whose probability under the base is below R times that of the base's best id, from 0 "
        "to 1 (default: 0, all can be). Per request: proxy_plausible.",
    ),
    "placement": dict(
        choices=NAMES,
        help="Where the small models run. 'shared': on all --tp-size ranks, as the base. 'split': the base on all, "
        "each of them on half of the ranks. 'dedicated': on ranks of their own, which the base leaves to them. Chosen "
        "when not given; the start says why.",
    ),
    "tp_size": dict(
        type=int,
        metavar="N",
        help="Ranks of each small model (default: half of --tp-size in 'split'; in 'dedicated' as few as leave the "
        "base a number of ranks that it divides by, mostly 1).",
    ),
    "streams": dict(
        choices=("on", "off"),
        help="Whether, on a GPU, the models of a rank decode at the same time, on streams and a share of the GPU of "
        "their own (default: on). 'off' is slower and as right: with it a race between them can be told from a fault "
        "elsewhere.",
    ),
    "speculate": dict(
        metavar="off|K|auto",
        help="Let the expert write K tokens ahead, which all models then read in one step: the same tokens, fewer "
        "steps (default: auto, and off where that can't be served). With K the expert reads requests at alpha 0 too; "
        "'auto' writes ahead for guided ones, and where it brings more tokens a second.",
    ),
    "config": dict(
        metavar="FILE",
        help="YAML with the same settings (expert_path, amateur_path, alpha, law, clip, plausible, placement, tp_size, "
        "streams, speculate), under 'expert' and 'amateur' each model's revision, dtype, quantization and load_format, "
        "under 'experts' those of more experts by name, with path, amateur_path and amateur, and under 'limits' what "
        "one request may ask for (max_n and its like, as flags --proxy-max-n). Flags win over the file.",
    ),
    "require_strength": dict(
        action="store_true",
        help="Refuse requests that name no strength: behind a router that drops fields they would get --proxy-alpha "
        "without being told. The model's name carries it too: NAME@0.8, NAME@0 for the base alone.",
    ),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        NAME,
        "Guide the base model at test time: base + alpha * (expert - amateur). Needs --plugin proxythinker.",
    )
    group.add_argument(
        "--plugin",
        metavar="NAME",
        help=f"Serve with this plugin ('{NAME}'). Without the two paths below it is plain SGLang, "
        "with CPU support where there is no GPU.",
    )
    _add_guidance(group)
    Limits.add_flags(
        parser.add_argument_group(f"{NAME}: limits", "What one request may ask for; more is refused. Guided or plain.")
    )


def add_flags_briefly(parser: argparse.ArgumentParser) -> None:
    """The flags of guidance with the first sentence of each, for a help that fits a screen; no limits."""
    _add_guidance(parser.add_argument_group("guidance"), briefly=True)


def _add_guidance(group: argparse._ArgumentGroup, briefly: bool = False) -> None:
    for name, options in _FLAGS.items():
        if briefly:
            options = options | {"help": options["help"].split(". ")[0].removesuffix(".")}
        group.add_argument(flag_of(name), dest=_dest(name), default=None, **options)


def take_flags(args: argparse.Namespace) -> dict[str, Any] | None:
    """Remove our flags from a parsed command line.

    Returns:
        Fields of `ProxyConfig` and `Limits`, and `config` (a file), None where not given; None when the plugin was not
        asked for.

    Raises:
        SystemExit: an unknown plugin, or proxies without the plugin.
    """
    plugin = vars(args).pop("plugin", None)
    flags = {name: vars(args).pop(_dest(name), None) for name in (*_FLAGS, *Limits.model_fields)}
    if plugin is None:
        if given := [flag_of(name) for name, value in flags.items() if value is not None]:
            raise SystemExit(
                f"proxythinker: {', '.join(given)} given without --plugin {NAME}: the server would be the base model "
                f"alone. Add --plugin {NAME}."
            )
        return None
    if plugin != NAME:
        raise SystemExit(f"proxythinker: --plugin {plugin!r} is not known here. This is '--plugin {NAME}'.")
    return flags


def _dest(name: str) -> str:
    return f"proxy_{name}"
