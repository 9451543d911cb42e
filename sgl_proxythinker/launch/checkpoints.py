"""Can these three checkpoints be added token by token? Checked before any weight is read.

One tokenizer and one image processor feed all three models and the logits are added column by column, so ids must mean
the same token, and pixels the same patch, to each of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

from sgl_proxythinker.architectures import ARCHITECTURES, Architecture, Pictures
from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.placement import Shape
from sgl_proxythinker.roles import BASE, Role

logger = logging.getLogger(__name__)


class Models(NamedTuple):
    """What a launch needs to know of the three models."""

    context_length: int  # tokens to serve: the smallest of the three, or the user's if that is smaller
    shapes: Mapping[Role, Shape]


def check_models(config: ProxyConfig, given: Mapping[str, Any]) -> Models:
    """Compare the three checkpoints' configs, tokenizers and image processors.

    Args:
        config: the proxies.
        given: SGLang's arguments by field name, as the user gave them.

    Raises:
        LaunchError: a checkpoint can't be read, or two of them don't fit; names the first difference.
    """
    if config.expert_path == config.amateur_path and config.expert == config.amateur:
        logger.warning(
            "proxythinker: expert and amateur are both %r: their difference is zero, so the server answers as the "
            "base alone would, at three models' cost", config.expert_path,
        )  # fmt: skip
    trust = bool(given.get("trust_remote_code"))
    sources = {BASE: (given["model_path"], given.get("revision"))}
    sources |= {role: (model.path, model.options.revision) for role, model in config.small_models.items()}
    # SGLang reads the tokenizer and the image processor of all requests from --tokenizer-path.
    readers = sources | {BASE: (given.get("tokenizer_path") or given["model_path"], given.get("revision"))}

    configs = {role: _read(AutoConfig, "config", role, *source, trust) for role, source in sources.items()}
    architectures = {role: _architecture(config, role, sources[role][0]) for role, config in configs.items()}
    pictures = _pictures(architectures, configs)
    untried = sorted({_name(configs[role]) for role, row in architectures.items() if not row.was_on_gpu})
    if untried and given.get("device") != "cpu":
        logger.warning(
            "proxythinker: %s is tested on a CPU only, where it gives the tokens of a plain loop over three models; "
            "compare some of yours with programs.reference_hf before you rely on them", " and ".join(untried),
        )  # fmt: skip
    tokenizers = {role: _read(AutoTokenizer, "tokenizer", role, *source, trust) for role, source in readers.items()}
    vocab = tokenizers[BASE].get_vocab()
    for role in config.small_models:
        _check_tokenizer(vocab, tokenizers[role].get_vocab(), role)
    _check_heads(configs, vocab)
    if pictures is not None:
        processors = {
            role: _read(AutoImageProcessor, "image processor", role, *source, trust) for role, source in readers.items()
        }
        _check_equal(configs, pictures.token_ids, lambda config: config, "image token ids")
        _check_equal(configs, pictures.tower, lambda config: config.vision_config, "vision tower")
        _check_equal(processors, pictures.processor, lambda processor: processor, "image processor")
    shapes = {role: architecture.shape(configs[role]) for role, architecture in architectures.items()}
    if given.get("dtype") in _WIDE or given.get("quantization") or any(map(_is_quantized, configs.values())):
        # Not what 16 bits a weight would take.
        shapes = {role: shape._replace(weight_bytes=0) for role, shape in shapes.items()}
    return Models(_context_length(configs, given.get("context_length")), shapes)


def _read(loader: Any, what: str, role: Role, path: str, revision: str | None, trust: bool) -> Any:
    try:
        return loader.from_pretrained(path, revision=revision or "main", trust_remote_code=trust)
    except Exception as error:  # the hub client, the file system and the parsers raise dozens of types
        raise LaunchError(
            f"the {role}'s {what} can't be read from {path!r}: {error}. Check the path, or the hub id and revision."
        ) from error


def _architecture(config: Any, role: Role, path: str) -> Architecture:
    found = _name(config)
    usable = [name for name, row in ARCHITECTURES.items() if role == BASE or row.is_small]
    if found not in usable:
        raise LaunchError(
            f"the {role} {path!r} is a {found}: guidance is built and tested where it is one of {', '.join(usable)}."
        )
    return ARCHITECTURES[found]


def _name(config: Any) -> str:
    return (config.architectures or ["none"])[0]


def _pictures(architectures: Mapping[Role, Architecture], configs: Mapping[Role, Any]) -> Pictures | None:
    """How all of the models see; None: none of them does."""
    pictures = architectures[BASE].pictures
    for role, architecture in architectures.items():
        if architecture.pictures != pictures:
            raise LaunchError(
                f"the base is a {_name(configs[BASE])}, which reads {_read_by(pictures)}, and the {role} a "
                f"{_name(configs[role])}, which reads {_read_by(architecture.pictures)}: one processor feeds all "
                "models. Use models of one family."
            )
    return pictures


def _read_by(pictures: Pictures | None) -> str:
    return f"pictures as {pictures.family} does" if pictures else "text only"


def _check_tokenizer(base: Mapping[str, int], proxy: Mapping[str, int], role: Role) -> None:
    if base == proxy:
        return
    ours, theirs = ({index: token for token, index in vocab.items()} for vocab in (base, proxy))
    differing = sorted(index for index in ours.keys() | theirs.keys() if ours.get(index) != theirs.get(index))
    examples = ", ".join(
        f"{index} is {ours.get(index, 'unknown')!r} to the base and {theirs.get(index, 'unknown')!r} to the {role}"
        for index in differing[:3]
    )
    raise LaunchError(
        f"the tokenizers of the base and the {role} differ in {len(differing)} ids: {examples}. Logits are added id by "
        "id, so all three models must share one vocabulary. Use models of one family."
    )


def _check_heads(configs: Mapping[Role, Any], vocab: Mapping[str, int]) -> None:
    needed = max(vocab.values()) + 1
    for role, config in configs.items():
        rows = config.get_text_config().vocab_size
        if rows < needed:
            raise LaunchError(
                f"the {role}'s output head has {rows} rows and the tokenizer knows {needed} ids: some tokens have no "
                f"logit. Use a {role} trained with this tokenizer."
            )


def _check_equal(parts: Mapping[Role, Any], names: tuple[str, ...], view: Callable[[Any], Any], what: str) -> None:
    for name in names:
        values = {role: _comparable(getattr(view(part), name, None)) for role, part in parts.items()}
        if set(values.values()) == {None}:
            raise LaunchError(
                f"the {what} of all three models has no {name}: this transformers release names it differently, so "
                "it can't be compared. Install the release that SGLang requires."
            )
        for role in values:
            if values[role] != values[BASE]:
                raise LaunchError(
                    f"the {what} of the base and the {role} differ: {name} is {values[BASE]!r} and "
                    f"{values[role]!r}. One processor feeds all three models, so the {role} would see other images "
                    "than it was trained on. Use models of one family."
                )


_WIDE = ("float", "float32")


def _is_quantized(config: Any) -> bool:
    return getattr(config, "quantization_config", None) is not None


def _comparable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _context_length(configs: Mapping[Role, Any], asked: int | None) -> int:
    from sgl_proxythinker.upstream.launch import get_context_length

    lengths = {role: get_context_length(config.get_text_config()) for role, config in configs.items()}
    shortest = min(lengths, key=lengths.__getitem__)
    if asked is not None and asked > lengths[shortest]:
        raise LaunchError(
            f"--context-length {asked} is longer than the {shortest} allows ({lengths[shortest]}): every token is read "
            f"by all three models. Use at most {lengths[shortest]}."
        )
    return asked if asked is not None else lengths[shortest]
